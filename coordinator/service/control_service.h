// ControlService over gRPC: one stream per worker, without a thread of its own.
//
// Hands Hello to JobSupervisor::Join, every later message to Receive, and the
// stream's end to Leave.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_CONTROL_SERVICE_H_
#define DELTAPIPE_COORDINATOR_SERVICE_CONTROL_SERVICE_H_

#include <string>

#include "coordinator/background/job_supervisor.h"
#include "proto/deltapipe/v1/control.grpc.pb.h"

namespace deltapipe {

class ControlServiceImpl : public v1::ControlService::CallbackService {
 public:
  /// `jobs` outlives the server that serves this.
  explicit ControlServiceImpl(JobSupervisor* jobs) : jobs_(jobs) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Session(
      grpc::CallbackServerContext* context) override;

 private:
  JobSupervisor* const jobs_;
};

/// The host of gRPC's name for a peer: "10.0.0.2" of "ipv4:10.0.0.2:41233",
/// "::1" of "ipv6:%5B::1%5D:41233".
std::string PeerHost(const std::string& peer);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_CONTROL_SERVICE_H_
