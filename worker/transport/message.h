// How every Channel frames a message on its stream: an 8-byte little-endian
// length, then the bytes. Channels without a stream count the same bytes, so
// that byte counts agree across transports.
#ifndef DELTAPIPE_WORKER_TRANSPORT_MESSAGE_H_
#define DELTAPIPE_WORKER_TRANSPORT_MESSAGE_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/buffer.h"
#include "worker/transport/channel.h"

namespace deltapipe {

inline constexpr int64_t kMessagePrefixBytes = 8;
inline constexpr size_t kMaxChannelNameBytes = 200;

inline int64_t TotalBytes(absl::Span<const ByteSpan> pieces) {
  int64_t total = 0;
  for (const ByteSpan& piece : pieces) total += piece.size();
  return total;
}

/// A buffer for a message, not initialised. RESOURCE_EXHAUSTED without memory.
absl::StatusOr<Buffer> AllocateMessage(int64_t size);

/// One buffer with the bytes of all pieces, after `room` bytes left unset.
inline absl::StatusOr<Buffer> Concatenate(absl::Span<const ByteSpan> pieces,
                                          int64_t room = 0) {
  absl::StatusOr<Buffer> allocated = AllocateMessage(room + TotalBytes(pieces));
  if (!allocated.ok()) return allocated.status();
  Buffer buffer = *std::move(allocated);
  int64_t offset = room;
  for (const ByteSpan& piece : pieces) {
    if (piece.empty()) continue;
    std::memcpy(buffer.data() + offset, piece.data(), piece.size());
    offset += piece.size();
  }
  return buffer;
}

/// INVALID_ARGUMENT if a message of `size` bytes is too large for a channel.
inline absl::Status CheckMessageSize(int64_t size, int64_t max_message_bytes,
                                     const std::string& peer) {
  if (size <= max_message_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("message to ", peer, " has ", size,
                   " bytes, expected at most ", max_message_bytes));
}

/// INVALID_ARGUMENT unless `name` may name a channel.
inline absl::Status CheckChannelName(const std::string& name) {
  if (!name.empty() && name.size() <= kMaxChannelNameBytes) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("channel name has ", name.size(), " bytes, expected 1 to ",
                   kMaxChannelNameBytes));
}

/// The reason of a Cancel; a caller's OK must not look like success.
inline absl::Status CancelReason(const absl::Status& reason) {
  return reason.ok() ? absl::CancelledError("cancelled") : reason;
}

/// What a Connect returns that was cancelled.
inline absl::Status CalledOff() {
  return absl::CancelledError("the connection was called off");
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_MESSAGE_H_
