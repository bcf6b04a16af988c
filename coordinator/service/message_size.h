// How large a message may be that somebody sends to the coordinator.
//
// gRPC itself refuses larger ones before anything of ours sees them, so that
// nobody could write them down. It is told to let somewhat more through, and
// each service refuses what is beyond this: RequestGuard's Auditor logs it.
// Pure; thread-safe.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_MESSAGE_SIZE_H_
#define DELTAPIPE_COORDINATOR_SERVICE_MESSAGE_SIZE_H_

#include <google/protobuf/message_lite.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace deltapipe {

/// Specs have 1 MiB at most.
inline constexpr int kMaxMessageBytes = 4 << 20;
/// What gRPC reads into memory at most, and refuses beyond, in silence.
inline constexpr int kMaxReceivedBytes = 2 * kMaxMessageBytes;

/// RESOURCE_EXHAUSTED beyond kMaxMessageBytes, as written on the wire by us.
inline absl::Status CheckMessageSize(
    const google::protobuf::MessageLite& message) {
  const size_t bytes = message.ByteSizeLong();
  if (bytes <= static_cast<size_t>(kMaxMessageBytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the message has ", bytes, " bytes, expected at most ",
                   kMaxMessageBytes, ": send less in one call"));
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_MESSAGE_SIZE_H_
