// ControlService over gRPC: one stream per worker, without a thread of its own.
//
// Hands Hello to JobSupervisor::Join, every later message to Receive, and the
// stream's end to Leave.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_CONTROL_SERVICE_H_
#define DELTAPIPE_COORDINATOR_SERVICE_CONTROL_SERVICE_H_

#include <functional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "coordinator/background/job_supervisor.h"
#include "proto/deltapipe/v1/control.grpc.pb.h"

namespace deltapipe {

class ControlServiceImpl : public v1::ControlService::CallbackService {
 public:
  /// Whom a stream's certificate shows. With it a worker is let in under that
  /// name alone.
  using WorkerOf = std::function<absl::StatusOr<std::string>(
      const grpc::ServerContextBase&)>;

  /// Told of a worker on `host` that may not do what its assignment says, such
  /// as to open a path. Any thread; twice, if it tells twice after its stream
  /// broke.
  using OnRefusal =
      std::function<void(const std::string& worker_id, const std::string& host,
                         const v1::AssignmentDone& done)>;

  /// `jobs` outlives the server that serves this.
  explicit ControlServiceImpl(JobSupervisor* jobs, WorkerOf worker_of = nullptr,
                              OnRefusal on_refusal = nullptr)
      : jobs_(jobs),
        worker_of_(std::move(worker_of)),
        on_refusal_(std::move(on_refusal)) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Session(
      grpc::CallbackServerContext* context) override;

 private:
  JobSupervisor* const jobs_;
  const WorkerOf worker_of_;    // null in plain text
  const OnRefusal on_refusal_;  // may be null
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_CONTROL_SERVICE_H_
