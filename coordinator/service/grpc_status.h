// absl::Status to grpc::Status; the codes are the same numbers.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_GRPC_STATUS_H_
#define DELTAPIPE_COORDINATOR_SERVICE_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"

namespace deltapipe {

inline grpc::Status ToGrpcStatus(const absl::Status& status) {
  // Longer messages overflow the header that carries them and are lost.
  constexpr size_t kMaxMessage = 4000;
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > kMaxMessage) {
    message.resize(kMaxMessage);
    message += " [cut]";
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_GRPC_STATUS_H_
