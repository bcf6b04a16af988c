// NcclDisposal: ends communicators and frees what belonged to them.
//
// Aborting waits for the device, and so does freeing its memory: for as long as
// any kernel of another communicator waits for a peer that is gone. Whoever did
// that to one edge after the other would never come to the edge that holds up
// the first. So nobody waits here: Take returns at once, and a thread of its
// own aborts as one group what has come until it runs; what comes later does
// not wait for that one.
//
// A clean communicator is finalized, which takes both ends, and then destroyed;
// if the peer does not come to it in time, it is aborted, too. A communicator
// that saw an error is never destroyed: that might wait for its peer for ever.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_DISPOSAL_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_DISPOSAL_H_

#include <chrono>
#include <list>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "worker/transport/nccl/cuda_library.h"
#include "worker/transport/nccl/nccl_library.h"

namespace deltapipe {

/// What an edge leaves behind; null for what it never had.
struct NcclRemains {
  NcclCommunicator communicator = nullptr;
  /// Nothing failed and nothing is on its way.
  bool is_clean = false;
  CudaStream stream = nullptr;
  std::vector<CudaEvent> events;
  void* host_memory = nullptr;
  void* device_memory = nullptr;
  std::string peer;
};

class NcclDisposal {
 public:
  /// How long a clean end waits for the peer's.
  static constexpr Nanos kFinalizeWithin = std::chrono::seconds(1);

  /// Borrows the libraries.
  NcclDisposal(const NcclLibrary* nccl, const CudaLibrary* cuda, int device);
  /// Waits until all is done.
  ~NcclDisposal();

  /// The caller must not use the communicator any more, from any thread.
  void Take(NcclRemains remains);
  /// Waits until nothing is left to do; false at the deadline.
  bool Await(Deadline deadline);

 private:
  struct Batch {
    Thread thread;
    bool is_done = false;
  };

  void Run(Batch* batch);
  void Abort(const std::vector<NcclRemains*>& remains);
  /// Destroys those that could be finalized, and returns the others.
  std::vector<NcclRemains*> Destroy(std::vector<NcclRemains*> remains);
  void FreeMemory(const NcclRemains& remains);

  const NcclLibrary* const nccl_;
  const CudaLibrary* const cuda_;
  const int device_;

  Mutex mutex_;
  CondVar changed_;
  std::vector<NcclRemains> waiting_ DP_GUARDED_BY(mutex_);
  std::list<Batch> batches_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_DISPOSAL_H_
