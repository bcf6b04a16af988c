#include "worker/transport/nccl/control_lane.h"

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "base/little_endian.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr size_t kAnnouncementBytes = 16;

}  // namespace

absl::Status ControlLane::Send(Kind kind, absl::Span<const ByteSpan> pieces,
                               Deadline deadline) {
  const uint8_t last = static_cast<uint8_t>(kind);
  absl::InlinedVector<ByteSpan, 8> all(pieces.begin(), pieces.end());
  all.push_back({&last, 1});
  return channel_->Send(all, deadline);
}

absl::Status ControlLane::Announce(const Announcement& announcement,
                                   Deadline deadline) {
  uint8_t bytes[kAnnouncementBytes];
  StoreLittleEndian<uint64_t>(
      announcement.number,
      StoreLittleEndian<uint64_t>(announcement.size, bytes));
  return Send(Kind::kAnnounced, {ByteSpan(bytes)}, deadline);
}

absl::StatusOr<ControlLane::Message> ControlLane::Receive(Deadline deadline) {
  Message message;
  if (ahead_.has_value()) {
    message.bytes = *std::move(ahead_);
    ahead_.reset();
  } else {
    DP_ASSIGN_OR_RETURN(message.bytes, channel_->Receive(deadline));
  }
  const int64_t size = message.bytes.size();
  const uint8_t kind = size > 0 ? message.bytes.data()[size - 1] : 0;
  if (kind < static_cast<uint8_t>(Kind::kHello) ||
      kind > static_cast<uint8_t>(Kind::kAnnounced)) {
    return absl::DataLossError(absl::StrCat(
        "message of ", size, " bytes from ", channel_->peer(),
        " is none of an NCCL channel: does the peer use network.transport: "
        "tcp?"));
  }
  message.kind = static_cast<Kind>(kind);
  message.bytes.Truncate(size - 1);
  return message;
}

absl::Status ControlLane::Watch() {
  // With a message in hand the peer was there a moment ago; what comes after
  // that is not looked at, or the peer could fill this side's memory.
  if (ahead_.has_value()) return absl::OkStatus();
  auto message = channel_->Receive(Deadline::After(std::chrono::seconds(0)));
  if (message.ok()) {
    ahead_ = *std::move(message);
    return absl::OkStatus();
  }
  if (absl::IsDeadlineExceeded(message.status())) return absl::OkStatus();
  return message.status();
}

absl::StatusOr<ControlLane::Announcement> ControlLane::ReadAnnouncement(
    ByteSpan bytes) {
  if (bytes.size() != kAnnouncementBytes) {
    return absl::DataLossError(absl::StrCat("an announcement has ",
                                            bytes.size(), " bytes, expected ",
                                            kAnnouncementBytes));
  }
  return Announcement{LoadLittleEndian<uint64_t>(bytes.data()),
                      LoadLittleEndian<uint64_t>(bytes.data() + 8)};
}

}  // namespace deltapipe
