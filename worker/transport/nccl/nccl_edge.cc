#include "worker/transport/nccl/nccl_edge.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/transport/message.h"

namespace deltapipe {
namespace {

constexpr Nanos kFirstPause = std::chrono::microseconds(10);
constexpr Nanos kLongestPause = std::chrono::milliseconds(1);
/// Multiprocessors that an edge's kernel may occupy: slow networks need few,
/// and training wants the rest.
constexpr int kMaxThreadBlocks = 2;
/// What crosses a new edge first.
constexpr uint8_t kGreeting[] = {'D', 'P', 'N', 'C', 1, 0, 0, 0};

/// Reads pieces as one run of bytes.
class PieceReader {
 public:
  explicit PieceReader(absl::Span<const ByteSpan> pieces) : pieces_(pieces) {}

  void Read(int64_t size, uint8_t* to) {
    while (size > 0) {
      const ByteSpan& piece = pieces_.front();
      const int64_t part = std::min<int64_t>(size, piece.size() - offset_);
      if (part > 0) std::memcpy(to, piece.data() + offset_, part);
      to += part;
      size -= part;
      offset_ += part;
      if (offset_ == static_cast<int64_t>(piece.size())) {
        pieces_.remove_prefix(1);
        offset_ = 0;
      }
    }
  }

 private:
  absl::Span<const ByteSpan> pieces_;
  int64_t offset_ = 0;
};

}  // namespace

NcclEdge::NcclEdge(NcclContext* context, const NcclEdgeOptions& options)
    : context_(context),
      nccl_(context->nccl()),
      cuda_(context->cuda()),
      options_(options) {
  own_.peer = options.peer;
}

absl::StatusOr<std::unique_ptr<NcclEdge>> NcclEdge::Create(
    NcclContext* context, const NcclEdgeOptions& options, Deadline deadline,
    const NcclWatch& watch) {
  std::unique_ptr<NcclEdge> edge(new NcclEdge(context, options));
  DP_RETURN_IF_ERROR(edge->Enter());
  const absl::Status status = edge->Leave(edge->SetUp(watch, deadline));
  if (status.ok()) return edge;
  edge->Cancel(status);  // also after a deadline: nobody comes back to it
  return status;
}

NcclEdge::~NcclEdge() {
  bool is_clean = issued_ == nullptr && bytes_received_ == 0;
  for (const Slot& slot : slots_) is_clean = is_clean && slot.bytes == 0;
  {
    MutexLock lock(&mutex_);
    if (is_handed_over_) return;
    is_clean = is_clean && broken_.ok();
    is_handed_over_ = true;
  }
  HandOver(is_clean);
}

absl::Status NcclEdge::SetUp(const NcclWatch& watch, Deadline deadline) {
  DP_RETURN_IF_ERROR(MakeMemory());
  DP_RETURN_IF_ERROR(Join(watch, deadline));
  // NCCL connects at the first transfer, and only while both ends are at it.
  if (options_.end == NcclEnd::kSender) {
    DP_RETURN_IF_ERROR(SendChunks({ByteSpan(kGreeting)}, deadline, watch));
    for (Slot& slot : slots_) {
      DP_RETURN_IF_ERROR(AwaitSlot(slot, deadline, watch));
      slot.bytes = 0;
    }
    return absl::OkStatus();
  }
  uint8_t greeting[sizeof(kGreeting)] = {};
  DP_RETURN_IF_ERROR(ReceiveChunks(absl::MakeSpan(greeting), deadline, watch));
  if (std::equal(greeting, std::end(greeting), kGreeting)) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat(
      What(), " failed: the first bytes arrived damaged: see NCCL_DEBUG=INFO"));
}

absl::Status NcclEdge::MakeMemory() {
  DP_RETURN_IF_ERROR(context_->CheckCuda(
      cuda_.stream_create_with_flags(&own_.stream, kCudaStreamNonBlocking),
      "create a stream"));
  const size_t bytes = kNumSlots * static_cast<size_t>(options_.chunk_bytes);
  CudaResult allocated = cuda_.host_alloc(&own_.host_memory, bytes, 0);
  if (allocated == kCudaSuccess) {
    allocated = cuda_.malloc(&own_.device_memory, bytes);
  }
  if (allocated != kCudaSuccess) {
    return absl::ResourceExhaustedError(absl::StrCat(
        context_->description(), " has no ", bytes,
        " bytes of pinned and device memory for the channel with ",
        options_.peer, ": CUDA says ", cuda_.get_error_string(allocated),
        ": free some on that GPU, or use network.transport: tcp"));
  }
  for (size_t i = 0; i < kNumSlots; ++i) {
    const size_t offset = i * static_cast<size_t>(options_.chunk_bytes);
    slots_[i].host = static_cast<uint8_t*>(own_.host_memory) + offset;
    slots_[i].device = static_cast<uint8_t*>(own_.device_memory) + offset;
    DP_RETURN_IF_ERROR(
        context_->CheckCuda(cuda_.event_create_with_flags(
                                &slots_[i].event, kCudaEventDisableTiming),
                            "create an event"));
    own_.events.push_back(slots_[i].event);
  }
  return absl::OkStatus();
}

absl::Status NcclEdge::Join(const NcclWatch& watch, Deadline deadline) {
  NcclConfig config;
  config.blocking = 0;
  config.max_ctas = kMaxThreadBlocks;
  const NcclResult begun =
      nccl_.comm_init_rank_config(&own_.communicator, 2, options_.id,
                                  static_cast<int>(options_.end), &config);
  if (!IsAcceptable(begun)) return NcclFailure(begun);
  return Await([this] { return IsReady(); }, deadline, watch);
}

absl::Status NcclEdge::Send(absl::Span<const ByteSpan> pieces,
                            Deadline deadline) {
  DP_RETURN_IF_ERROR(Enter());
  const absl::Status sent = Leave(SendChunks(pieces, deadline, nullptr));
  if (!sent.ok()) Cancel(sent);  // part of the message is on its way
  return sent;
}

absl::Status NcclEdge::SendChunks(absl::Span<const ByteSpan> pieces,
                                  Deadline deadline, const NcclWatch& watch) {
  PieceReader reader(pieces);
  const int64_t size = TotalBytes(pieces);
  for (int64_t sent = 0; sent < size;) {
    Slot& slot = slots_[next_slot_];
    DP_RETURN_IF_ERROR(AwaitSlot(slot, deadline, watch));
    slot.bytes = 0;
    const int64_t bytes = std::min(size - sent, options_.chunk_bytes);
    reader.Read(bytes, slot.host);
    DP_RETURN_IF_ERROR(context_->CheckCuda(
        cuda_.memcpy_async(slot.device, slot.host, static_cast<size_t>(bytes),
                           kCudaHostToDevice, own_.stream),
        "copy to the device"));
    const NcclResult issued = nccl_.send(
        slot.device, static_cast<size_t>(bytes), kNcclUint8,
        static_cast<int>(NcclEnd::kReceiver), own_.communicator, own_.stream);
    if (!IsAcceptable(issued)) return NcclFailure(issued);
    slot.bytes = bytes;
    DP_RETURN_IF_ERROR(AwaitTakenUp(deadline, watch));
    DP_RETURN_IF_ERROR(context_->CheckCuda(
        cuda_.event_record(slot.event, own_.stream), "record an event"));
    sent += bytes;
    next_slot_ = (next_slot_ + 1) % kNumSlots;
  }
  return absl::OkStatus();
}

absl::Status NcclEdge::Receive(absl::Span<uint8_t> message, Deadline deadline,
                               const NcclWatch& watch) {
  DP_RETURN_IF_ERROR(Enter());
  return Leave(ReceiveChunks(message, deadline, watch));
}

absl::Status NcclEdge::ReceiveChunks(absl::Span<uint8_t> message,
                                     Deadline deadline,
                                     const NcclWatch& watch) {
  const int64_t size = static_cast<int64_t>(message.size());
  while (bytes_received_ < size) {
    if (issued_ != nullptr) {
      DP_RETURN_IF_ERROR(AwaitTakenUp(deadline, watch));
      DP_RETURN_IF_ERROR(context_->CheckCuda(
          cuda_.memcpy_async(issued_->host, issued_->device,
                             static_cast<size_t>(issued_->bytes),
                             kCudaDeviceToHost, own_.stream),
          "copy from the device"));
      DP_RETURN_IF_ERROR(context_->CheckCuda(
          cuda_.event_record(issued_->event, own_.stream), "record an event"));
      issued_ = nullptr;
    }
    if (bytes_posted_ < size && slots_[next_slot_].bytes == 0) {
      DP_RETURN_IF_ERROR(Post(size));
      continue;
    }
    Slot& slot = slots_[oldest_slot_];
    DP_RETURN_IF_ERROR(AwaitSlot(slot, deadline, watch));
    std::memcpy(message.data() + bytes_received_, slot.host,
                static_cast<size_t>(slot.bytes));
    bytes_received_ += slot.bytes;
    slot.bytes = 0;
    oldest_slot_ = (oldest_slot_ + 1) % kNumSlots;
  }
  bytes_posted_ = 0;
  bytes_received_ = 0;
  return absl::OkStatus();
}

absl::Status NcclEdge::Post(int64_t message_bytes) {
  Slot& slot = slots_[next_slot_];
  const int64_t bytes =
      std::min(message_bytes - bytes_posted_, options_.chunk_bytes);
  const NcclResult issued = nccl_.recv(
      slot.device, static_cast<size_t>(bytes), kNcclUint8,
      static_cast<int>(NcclEnd::kSender), own_.communicator, own_.stream);
  if (!IsAcceptable(issued)) return NcclFailure(issued);
  slot.bytes = bytes;
  issued_ = &slot;
  bytes_posted_ += bytes;
  next_slot_ = (next_slot_ + 1) % kNumSlots;
  return absl::OkStatus();
}

absl::Status NcclEdge::Drain(Deadline deadline) {
  DP_RETURN_IF_ERROR(Enter());
  absl::Status drained;
  for (Slot& slot : slots_) {
    drained = AwaitSlot(slot, deadline, nullptr);
    if (!drained.ok()) break;
    slot.bytes = 0;
  }
  return Leave(drained);
}

void NcclEdge::Cancel(const absl::Status& reason) {
  bool is_mine;
  {
    MutexLock lock(&mutex_);
    if (broken_.ok()) broken_ = reason;
    is_mine = !is_used_ && !is_handed_over_;
    if (is_mine) is_handed_over_ = true;
  }
  changed_.NotifyAll();
  if (is_mine) HandOver(/*is_clean=*/false);
}

absl::Status NcclEdge::AwaitTakenUp(Deadline deadline, const NcclWatch& watch) {
  return Await([this] { return IsReady(); }, deadline, watch);
}

absl::Status NcclEdge::AwaitSlot(const Slot& slot, Deadline deadline,
                                 const NcclWatch& watch) {
  if (slot.bytes == 0) return absl::OkStatus();
  return Await([&] { return HasHappened(slot.event); }, deadline, watch);
}

absl::StatusOr<bool> NcclEdge::IsReady() const {
  NcclResult state = kNcclSuccess;
  const NcclResult asked =
      nccl_.comm_get_async_error(own_.communicator, &state);
  if (asked != kNcclSuccess) return NcclFailure(asked);
  if (!IsAcceptable(state)) return NcclFailure(state);
  return state == kNcclSuccess;
}

absl::StatusOr<bool> NcclEdge::HasHappened(CudaEvent event) const {
  const CudaResult state = cuda_.event_query(event);
  if (state == kCudaSuccess) return true;
  cuda_.get_last_error();  // not an error, but it would be remembered as one
  if (state != kCudaNotReady) return context_->CheckCuda(state, What());
  // A peer that has failed shows here alone; the event would never come.
  DP_RETURN_IF_ERROR(IsReady().status());
  return false;
}

absl::Status NcclEdge::Await(
    const std::function<absl::StatusOr<bool>()>& has_come, Deadline deadline,
    const NcclWatch& watch) {
  Nanos pause = kFirstPause;
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (!broken_.ok()) return broken_;
    }
    DP_ASSIGN_OR_RETURN(const bool is_there, has_come());
    if (is_there) return absl::OkStatus();
    if (watch) DP_RETURN_IF_ERROR(watch());
    if (deadline.has_passed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          What(), " timed out: the peer does not take part in it"));
    }
    MutexLock lock(&mutex_);
    changed_.WaitUntil(lock, std::min(deadline, Deadline::After(pause)),
                       [this] { return !broken_.ok(); });
    pause = std::min(2 * pause, kLongestPause);
  }
}

absl::Status NcclEdge::NcclFailure(NcclResult result) const {
  const char* const last = nccl_.get_last_error(own_.communicator);
  const std::string message = absl::StrCat(
      What(), " failed: NCCL says ", nccl_.get_error_string(result),
      last == nullptr || *last == '\0' ? "" : absl::StrCat(": ", last));
  if (result == kNcclInvalidArgument || result == kNcclInvalidUsage) {
    return absl::FailedPreconditionError(absl::StrCat(
        message,
        "; each worker needs a GPU of its own (NCCL_DEBUG=INFO says "
        "more)"));
  }
  return absl::UnavailableError(message);
}

std::string NcclEdge::What() const {
  return absl::StrCat(
      options_.end == NcclEnd::kSender ? "send to " : "receive from ",
      options_.peer, " over ", context_->description());
}

absl::Status NcclEdge::Enter() {
  {
    MutexLock lock(&mutex_);
    if (!broken_.ok()) return broken_;
    is_used_ = true;
  }
  const absl::Status selected = context_->UseDevice();
  return selected.ok() ? selected : Leave(selected);
}

absl::Status NcclEdge::Leave(const absl::Status& status) {
  bool is_mine;
  absl::Status first;
  {
    MutexLock lock(&mutex_);
    is_used_ = false;
    if (broken_.ok() && !status.ok() && !absl::IsDeadlineExceeded(status)) {
      broken_ = status;
    }
    is_mine = !broken_.ok() && !is_handed_over_;
    if (is_mine) is_handed_over_ = true;
    first = broken_;
  }
  if (is_mine) HandOver(/*is_clean=*/false);
  return first.ok() ? status : first;
}

void NcclEdge::HandOver(bool is_clean) {
  own_.is_clean = is_clean;
  context_->disposal()->Take(std::exchange(own_, NcclRemains()));
}

}  // namespace deltapipe
