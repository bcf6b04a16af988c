// What a FakeGpu is in: its streams and communicators, and how work on them
// moves on. fake_gpu.cc makes libraries of it. All of it is under `mutex`.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_TESTING_FAKE_GPU_STATE_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_TESTING_FAKE_GPU_STATE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "worker/transport/nccl/testing/fake_gpu.h"

namespace deltapipe {

struct FakeCommunicator;

struct FakeWork {
  enum Kind { kCopy, kMark, kSend, kReceive };
  Kind kind = kCopy;
  void* to = nullptr;
  const void* from = nullptr;
  size_t bytes = 0;
  CudaEvent event = nullptr;
  FakeCommunicator* communicator = nullptr;
};

using FakeStream = std::deque<FakeWork>;

struct FakeCommunicator {
  FakeCommunicator* peer = nullptr;  // once it has come
  int rank = 0;
  bool has_transferred = false;  // or at least issued a transfer
  bool is_finalized = false;
  bool is_gone = false;
  NcclResult error = kNcclSuccess;
  FakeStream* stream = nullptr;    // of its transfers
  std::atomic<int> num_inside{0};  // threads; the only one not under the lock

  bool is_connected() const {
    return !has_transferred || (peer != nullptr && peer->has_transferred);
  }
};

struct FakeGpu::State {
  void Misuse(const std::string& what) { counts.misuses.push_back(what); }
  template <typename Handle>
  Handle NewHandle() {
    return reinterpret_cast<Handle>(next_handle++ << 4);
  }

  /// Moves on what can move, on all streams.
  void MoveOn();
  NcclResult StateOf(const FakeCommunicator& communicator) const;
  /// Null, which counts as misuse, if there is none.
  FakeStream* Find(CudaStream stream);
  CudaResult Enqueue(CudaStream stream, const FakeWork& work, const char* what);
  CudaResult Allocate(void** memory_out, size_t bytes);
  CudaResult Free(void* block);
  NcclResult Join(NcclCommunicator* out, int num_ranks, const NcclUniqueId& id,
                  int rank, const NcclConfig& config);
  NcclResult Transfer(FakeCommunicator* own, FakeWork work, CudaStream stream);
  /// The communicator's end; its transfers leave their stream.
  void End(FakeCommunicator* own);
  void Destroy(FakeCommunicator* own);

  mutable Mutex mutex;
  FakeGpuFaults faults;
  FakeGpuCounts counts;
  int num_ids = 0;
  std::map<std::string, std::vector<FakeCommunicator*>> by_id;
  // Kept after their end, so that a late use is seen.
  std::vector<std::unique_ptr<FakeCommunicator>> communicators;
  std::map<CudaStream, std::unique_ptr<FakeStream>> streams;
  std::map<CudaEvent, int> marks_left;  // 0: has happened
  std::map<void*, std::unique_ptr<uint8_t[]>> memory;
  uintptr_t next_handle = 1;

 private:
  bool CanStart(const FakeWork& work) const;
  /// Moves the head of a stream on; false if it has to wait.
  bool Step(FakeStream* stream);
  void CheckStream(const FakeStream& stream, const char* what);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_TESTING_FAKE_GPU_STATE_H_
