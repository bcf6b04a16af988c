// FakeGpu: NCCL and CUDA in host memory, for any number of ranks that are
// threads of one process. It fills the structs that the loaded libraries fill.
//
// It behaves as the real ones do where that hurts: a communicator stays "in
// progress" until both ranks have come, and again at its first transfer until
// both have issued one; work on a stream happens in order and is done some time
// later; a send is done when the peer has issued a receive of exactly the same
// size, and any other size fails both; a transfer whose peer is gone stays
// where it is for ever, unless faults say otherwise; finalizing takes both
// ends. Nothing happens on threads of its own: every call moves on what can
// move.
//
// What a caller must not do counts as misuse: a call on a communicator that is
// gone or within another thread's call, work on a stream while its communicator
// is in progress, destroying one that was not finalized or has failed, aborting
// one outside a group.
//
// Thread-safe; outlives the libraries it hands out.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_TESTING_FAKE_GPU_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_TESTING_FAKE_GPU_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/transport/nccl/cuda_library.h"
#include "worker/transport/nccl/nccl_library.h"

namespace deltapipe {

/// May be ordered at any time; holds for what is under way, too.
struct FakeGpuFaults {
  bool inits_hang = false;
  bool transfers_hang = false;
  bool finalizing_hangs = false;
  /// What every communicator says of itself, unless kNcclSuccess.
  NcclResult error = kNcclSuccess;
};

struct FakeGpuCounts {
  int num_communicators = 0;  // made so far
  int num_destroyed = 0;
  int num_aborted = 0;
  int num_finalized = 0;
  /// Communicators, streams, events and pieces of memory that are there.
  int num_alive = 0;
  int64_t bytes_moved = 0;  // by transfers
  /// One sentence each.
  std::vector<std::string> misuses;
};

class FakeGpu {
 public:
  FakeGpu();
  ~FakeGpu();

  NcclLibrary nccl(int version = 22809);
  CudaLibrary cuda(int num_devices = 1);

  void SetFaults(const FakeGpuFaults& faults);
  FakeGpuCounts counts() const;

  struct State;

 private:
  const std::unique_ptr<State> state_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_TESTING_FAKE_GPU_H_
