#include "worker/transport/nccl/testing/fake_gpu.h"

#include <cstring>
#include <memory>

#include "base/mutex.h"
#include "worker/transport/nccl/testing/fake_gpu_state.h"

namespace deltapipe {
namespace {

thread_local int group_depth = 0;

/// Runs `call` on a communicator that is there, one call at a time.
template <typename Call>
NcclResult Inside(FakeGpu::State* state, NcclCommunicator handle, Call call) {
  auto* const own = reinterpret_cast<FakeCommunicator*>(handle);
  const bool is_alone = own->num_inside.fetch_add(1) == 0;
  NcclResult result = kNcclInvalidArgument;
  {
    MutexLock lock(&state->mutex);
    if (!is_alone) state->Misuse("two threads inside one communicator");
    if (own->is_gone) {
      state->Misuse("a call on a communicator that is gone");
    } else {
      state->MoveOn();
      result = call(own);
    }
  }
  own->num_inside.fetch_sub(1);
  return result;
}

const char* ErrorText(NcclResult result) {
  switch (result) {
    case kNcclSuccess:
      return "no error";
    case kNcclSystemError:
      return "unhandled system error";
    case kNcclInternalError:
      return "internal error";
    case kNcclInvalidUsage:
      return "invalid usage";
    case kNcclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "another error";
  }
}

}  // namespace

FakeGpu::FakeGpu() : state_(std::make_unique<State>()) {}
FakeGpu::~FakeGpu() = default;

NcclLibrary FakeGpu::nccl(int version) {
  State* const state = state_.get();
  NcclLibrary nccl;
  nccl.path = "fake";
  nccl.version = version;
  nccl.get_version = [version](int* out) {
    *out = version;
    return kNcclSuccess;
  };
  nccl.get_unique_id = [state](NcclUniqueId* id) {
    MutexLock lock(&state->mutex);
    *id = NcclUniqueId{};
    const int number = ++state->num_ids;
    std::memcpy(id->internal, &number, sizeof(number));
    return kNcclSuccess;
  };
  nccl.comm_init_rank_config = [state](NcclCommunicator* out, int num_ranks,
                                       NcclUniqueId id, int rank,
                                       NcclConfig* config) {
    MutexLock lock(&state->mutex);
    return state->Join(out, num_ranks, id, rank, *config);
  };
  nccl.comm_get_async_error = [state](NcclCommunicator handle,
                                      NcclResult* out) {
    return Inside(state, handle, [&](FakeCommunicator* own) {
      *out = state->StateOf(*own);
      return kNcclSuccess;
    });
  };
  nccl.comm_finalize = [state](NcclCommunicator handle) {
    return Inside(state, handle, [&](FakeCommunicator* own) {
      own->is_finalized = true;
      ++state->counts.num_finalized;
      return kNcclInProgress;
    });
  };
  nccl.comm_destroy = [state](NcclCommunicator handle) {
    return Inside(state, handle, [&](FakeCommunicator* own) {
      state->Destroy(own);
      return kNcclSuccess;
    });
  };
  nccl.comm_abort = [state](NcclCommunicator handle) {
    return Inside(state, handle, [&](FakeCommunicator* own) {
      if (group_depth == 0) state->Misuse("an abort that is in no group");
      ++state->counts.num_aborted;
      state->End(own);
      return kNcclSuccess;
    });
  };
  nccl.send = [state](const void* from, size_t bytes, NcclDataType, int,
                      NcclCommunicator handle, CudaStream stream) {
    return Inside(state, handle, [&](FakeCommunicator* own) {
      FakeWork work;
      work.kind = FakeWork::kSend;
      work.from = from;
      work.bytes = bytes;
      return state->Transfer(own, work, stream);
    });
  };
  nccl.recv = [state](void* to, size_t bytes, NcclDataType, int,
                      NcclCommunicator handle, CudaStream stream) {
    return Inside(state, handle, [&](FakeCommunicator* own) {
      FakeWork work;
      work.kind = FakeWork::kReceive;
      work.to = to;
      work.bytes = bytes;
      return state->Transfer(own, work, stream);
    });
  };
  nccl.group_start = [] {
    ++group_depth;
    return kNcclSuccess;
  };
  nccl.group_end = [] {
    --group_depth;
    return kNcclSuccess;
  };
  nccl.get_error_string = &ErrorText;
  nccl.get_last_error = [](NcclCommunicator) { return "the fake said so"; };
  return nccl;
}

CudaLibrary FakeGpu::cuda(int num_devices) {
  State* const state = state_.get();
  CudaLibrary cuda;
  cuda.path = "fake";
  cuda.get_device_count = [num_devices](int* out) {
    *out = num_devices;
    return kCudaSuccess;
  };
  cuda.set_device = [](int) { return kCudaSuccess; };
  cuda.malloc = [state](void** out, size_t bytes) {
    MutexLock lock(&state->mutex);
    return state->Allocate(out, bytes);
  };
  cuda.host_alloc = [state](void** out, size_t bytes, unsigned) {
    MutexLock lock(&state->mutex);
    return state->Allocate(out, bytes);
  };
  cuda.free = cuda.free_host = [state](void* block) {
    MutexLock lock(&state->mutex);
    return state->Free(block);
  };
  cuda.stream_create_with_flags = [state](CudaStream* out, unsigned) {
    MutexLock lock(&state->mutex);
    *out = state->NewHandle<CudaStream>();
    state->streams[*out] = std::make_unique<FakeStream>();
    ++state->counts.num_alive;
    return kCudaSuccess;
  };
  cuda.stream_destroy = [state](CudaStream stream) {
    MutexLock lock(&state->mutex);
    if (FakeStream* const found = state->Find(stream)) {
      if (!found->empty()) state->Misuse("a stream destroyed with work on it");
      state->streams.erase(stream);
      --state->counts.num_alive;
    }
    return kCudaSuccess;
  };
  cuda.memcpy_async = [state](void* to, const void* from, size_t bytes,
                              CudaCopy, CudaStream stream) {
    MutexLock lock(&state->mutex);
    FakeWork work;
    work.to = to;
    work.from = from;
    work.bytes = bytes;
    return state->Enqueue(stream, work, "a copy");
  };
  cuda.event_create_with_flags = [state](CudaEvent* out, unsigned) {
    MutexLock lock(&state->mutex);
    *out = state->NewHandle<CudaEvent>();
    state->marks_left[*out] = 0;
    ++state->counts.num_alive;
    return kCudaSuccess;
  };
  cuda.event_record = [state](CudaEvent event, CudaStream stream) {
    MutexLock lock(&state->mutex);
    ++state->marks_left[event];
    FakeWork work;
    work.kind = FakeWork::kMark;
    work.event = event;
    return state->Enqueue(stream, work, "an event recorded");
  };
  cuda.event_query = [state](CudaEvent event) {
    MutexLock lock(&state->mutex);
    state->MoveOn();
    return state->marks_left[event] == 0 ? kCudaSuccess : kCudaNotReady;
  };
  cuda.event_destroy = [state](CudaEvent event) {
    MutexLock lock(&state->mutex);
    if (state->marks_left.erase(event) == 0) {
      state->Misuse("an event destroyed that is not there");
    } else {
      --state->counts.num_alive;
    }
    return kCudaSuccess;
  };
  cuda.get_last_error = [] { return kCudaSuccess; };
  cuda.get_error_string = [](CudaResult) { return "a fake error"; };
  return cuda;
}

void FakeGpu::SetFaults(const FakeGpuFaults& faults) {
  MutexLock lock(&state_->mutex);
  state_->faults = faults;
}

FakeGpuCounts FakeGpu::counts() const {
  MutexLock lock(&state_->mutex);
  return state_->counts;
}

}  // namespace deltapipe
