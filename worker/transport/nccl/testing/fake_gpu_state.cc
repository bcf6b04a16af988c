#include "worker/transport/nccl/testing/fake_gpu_state.h"

#include <cstring>

namespace deltapipe {

bool FakeGpu::State::CanStart(const FakeWork& work) const {
  const FakeCommunicator& own = *work.communicator;
  return !faults.transfers_hang && !faults.inits_hang &&
         own.error == kNcclSuccess && own.peer != nullptr &&
         own.is_connected() && !own.peer->is_gone &&
         own.peer->stream != nullptr && !own.peer->stream->empty();
}

bool FakeGpu::State::Step(FakeStream* stream) {
  FakeWork& work = stream->front();
  switch (work.kind) {
    case FakeWork::kCopy:
      if (work.bytes > 0) std::memcpy(work.to, work.from, work.bytes);
      stream->pop_front();
      return true;
    case FakeWork::kMark:
      --marks_left[work.event];
      stream->pop_front();
      return true;
    case FakeWork::kReceive:
      return false;  // the sender's turn moves both
    case FakeWork::kSend:
      break;
  }
  if (!CanStart(work)) return false;
  FakeStream* const other = work.communicator->peer->stream;
  const FakeWork& receive = other->front();
  if (receive.kind != FakeWork::kReceive ||
      receive.communicator != work.communicator->peer) {
    return false;
  }
  if (receive.bytes != work.bytes) {
    work.communicator->error = kNcclInternalError;
    work.communicator->peer->error = kNcclInternalError;
    return false;
  }
  std::memcpy(receive.to, work.from, work.bytes);
  counts.bytes_moved += static_cast<int64_t>(work.bytes);
  other->pop_front();
  stream->pop_front();
  return true;
}

void FakeGpu::State::MoveOn() {
  bool has_moved = true;
  while (has_moved) {
    has_moved = false;
    for (auto& [handle, stream] : streams) {
      while (!stream->empty() && Step(stream.get())) has_moved = true;
    }
  }
}

NcclResult FakeGpu::State::StateOf(const FakeCommunicator& communicator) const {
  if (faults.error != kNcclSuccess) return faults.error;
  if (communicator.error != kNcclSuccess) return communicator.error;
  if (faults.inits_hang || communicator.peer == nullptr) {
    return kNcclInProgress;
  }
  if (communicator.is_finalized) {
    return !faults.finalizing_hangs && communicator.peer->is_finalized
               ? kNcclSuccess
               : kNcclInProgress;
  }
  return communicator.is_connected() ? kNcclSuccess : kNcclInProgress;
}

void FakeGpu::State::CheckStream(const FakeStream& stream, const char* what) {
  for (const FakeWork& work : stream) {
    if (work.communicator != nullptr &&
        StateOf(*work.communicator) == kNcclInProgress) {
      Misuse(std::string(what) + " while NCCL was in progress on the stream");
    }
  }
}

FakeStream* FakeGpu::State::Find(CudaStream stream) {
  const auto found = streams.find(stream);
  if (found != streams.end()) return found->second.get();
  Misuse("use of a stream that is not there");
  return nullptr;
}

CudaResult FakeGpu::State::Enqueue(CudaStream stream, const FakeWork& work,
                                   const char* what) {
  FakeStream* const found = Find(stream);
  if (found == nullptr) return static_cast<CudaResult>(1);
  if (work.communicator == nullptr) CheckStream(*found, what);
  found->push_back(work);
  MoveOn();
  return kCudaSuccess;
}

CudaResult FakeGpu::State::Allocate(void** memory_out, size_t bytes) {
  std::unique_ptr<uint8_t[]> block(new uint8_t[bytes]);
  *memory_out = block.get();
  memory[block.get()] = std::move(block);
  ++counts.num_alive;
  return kCudaSuccess;
}

CudaResult FakeGpu::State::Free(void* block) {
  if (memory.erase(block) == 0) {
    Misuse("memory freed that is not there");
  } else {
    --counts.num_alive;
  }
  return kCudaSuccess;
}

NcclResult FakeGpu::State::Join(NcclCommunicator* out, int num_ranks,
                                const NcclUniqueId& id, int rank,
                                const NcclConfig& config) {
  if (config.magic != kNcclConfigMagic || config.blocking != 0 ||
      num_ranks != 2 || rank < 0 || rank > 1) {
    Misuse("a communicator that is not one of two ranks, without blocking");
    return kNcclInvalidArgument;
  }
  auto& ranks = by_id[std::string(id.internal, kNcclUniqueIdBytes)];
  communicators.push_back(std::make_unique<FakeCommunicator>());
  FakeCommunicator* const own = communicators.back().get();
  own->rank = rank;
  ranks.push_back(own);
  ++counts.num_communicators;
  ++counts.num_alive;
  if (ranks.size() == 2) {
    ranks[0]->peer = ranks[1];
    ranks[1]->peer = ranks[0];
    if (ranks[0]->rank == ranks[1]->rank) {
      ranks[0]->error = ranks[1]->error = kNcclInvalidUsage;
    }
  }
  *out = reinterpret_cast<NcclCommunicator>(own);
  return kNcclInProgress;
}

NcclResult FakeGpu::State::Transfer(FakeCommunicator* own, FakeWork work,
                                    CudaStream stream) {
  if (StateOf(*own) == kNcclInProgress) {
    Misuse("a transfer while the communicator was in progress");
  }
  if (own->error != kNcclSuccess) return own->error;
  if (faults.error != kNcclSuccess) return faults.error;
  own->has_transferred = true;
  own->stream = Find(stream);
  work.communicator = own;
  if (own->stream == nullptr) return kNcclInvalidUsage;
  Enqueue(stream, work, "a transfer");
  return StateOf(*own);
}

void FakeGpu::State::End(FakeCommunicator* own) {
  own->is_gone = true;
  --counts.num_alive;
  if (own->stream == nullptr) return;
  for (FakeWork& work : *own->stream) {
    if (work.communicator == own) work = FakeWork{};  // a copy of nothing
  }
  own->stream = nullptr;
  MoveOn();
}

void FakeGpu::State::Destroy(FakeCommunicator* own) {
  if (!own->is_finalized || StateOf(*own) != kNcclSuccess) {
    Misuse("a communicator destroyed that was not finalized or has failed");
  }
  ++counts.num_destroyed;
  End(own);
}

}  // namespace deltapipe
