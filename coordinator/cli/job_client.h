// JobClient: JobService as the command line sees it, with Status for errors.
//
// Blocking; each call may be made from any thread. Errors say what is wrong
// and, where the coordinator does not answer, what to do about it.
#ifndef DELTAPIPE_COORDINATOR_CLI_JOB_CLIENT_H_
#define DELTAPIPE_COORDINATOR_CLI_JOB_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/cli/client_security.h"
#include "coordinator/cli/reconnection.h"
#include "proto/deltapipe/v1/admin.grpc.pb.h"
#include "proto/deltapipe/v1/tuning.grpc.pb.h"

namespace deltapipe {

class JobClient {
 public:
  /// Connects on first use, as the command line says, unless `security` says
  /// otherwise. Where that is impossible, each call says why.
  explicit JobClient(const std::string& address)
      : JobClient(address, *CommandLineSecurity()) {}
  JobClient(const std::string& address, const ClientSecurity& security);

  /// CANCELLED if Stop is called meanwhile: the job may have been stored or
  /// not.
  absl::StatusOr<v1::Job> Submit(const v1::SubmitJobRequest& request);
  absl::StatusOr<v1::Job> Get(const std::string& id);
  absl::StatusOr<v1::ListJobsResponse> List(const v1::ListJobsRequest& request);
  absl::StatusOr<v1::Job> Cancel(const std::string& id,
                                 const std::string& reason);
  absl::StatusOr<v1::Job> Pause(const std::string& id,
                                const std::string& reason);
  absl::StatusOr<v1::Job> Resume(const std::string& id);
  absl::StatusOr<v1::Job> RequestCheckpoint(const std::string& id);
  absl::StatusOr<v1::Worker> DrainWorker(const std::string& worker_id,
                                         const std::string& reason);
  absl::StatusOr<v1::Plan> GetPlan(const std::string& id);
  absl::StatusOr<v1::JobLedger> GetLedger(const std::string& id);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers();
  absl::StatusOr<v1::Version> GetVersion();
  absl::StatusOr<v1::JobMetrics> GetMetrics(const std::string& id);
  /// Waits until the steps are done: minutes, if they are long. CANCELLED if
  /// Stop is called meanwhile.
  absl::StatusOr<v1::TraceJobResponse> Trace(
      const v1::TraceJobRequest& request);

  absl::StatusOr<v1::Tuning> GetTuning(const std::string& job_id);
  /// Both wait until the change is in force, a minute at most.
  absl::StatusOr<v1::Tuning> UpdateTuning(
      const v1::UpdateTuningRequest& request);
  absl::StatusOr<v1::Tuning> SetBudget(const v1::SetBudgetRequest& request);

  /// Calls `on_event` for each event, on this thread, until the job has ended
  /// (OK), the stream breaks, Stop is called (CANCELLED) or `on_event` returns
  /// false (OK). An `on_event` that was slow misses steps, never other events:
  /// the coordinator cuts the stream then, and this watches again after an
  /// event of kind "warning" that says so. It does so from the last event or
  /// bookmark on; it asks for bookmarks itself and keeps them to itself.
  ///
  /// With a `reconnection` (borrowed) a stream that ends because the
  /// coordinator has gone is taken up again, too, as that decides: no event is
  /// missed and none told twice, and steps that were made meanwhile have the
  /// same warning in their place.
  absl::Status Watch(const v1::WatchJobRequest& request,
                     const std::function<bool(const v1::JobEvent&)>& on_event,
                     Reconnection* reconnection = nullptr);
  /// To be called when a call has failed with `error`: OK when it is time to
  /// try it again. What `reconnection` gives up with; CANCELLED by Stop.
  absl::Status AwaitReturn(const absl::Status& error,
                           Reconnection* reconnection);
  absl::Status ReadLogs(const v1::ReadLogsRequest& request,
                        const std::function<bool(const v1::LogLine&)>& on_line);

  /// Ends every present and future stream, Submit, Trace and AwaitReturn.
  void Stop();

 private:
  /// From here on Stop cancels `context`. False, and nothing else, if Stop has
  /// been called already.
  bool MakeStoppable(grpc::ClientContext* context);
  void MakeUnstoppable();
  template <typename Request, typename Item>
  absl::Status ReadStream(std::unique_ptr<grpc::ClientReader<Item>> (
                              v1::JobService::Stub::*open)(grpc::ClientContext*,
                                                           const Request&),
                          const Request& request,
                          const std::function<bool(const Item&)>& on_item);
  template <typename Service, typename Request, typename Response>
  absl::StatusOr<Response> Call(
      const std::unique_ptr<Service>& stub,
      grpc::Status (Service::*method)(grpc::ClientContext*, const Request&,
                                      Response*),
      const Request& request, std::chrono::seconds limit);
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(
      grpc::Status (v1::JobService::Stub::*method)(grpc::ClientContext*,
                                                   const Request&, Response*),
      const Request& request);
  absl::Status ToStatus(const grpc::Status& status) const;

  const std::string address_;
  absl::Status setup_;  // before channel_, which may write it
  const std::shared_ptr<grpc::Channel> channel_;  // the stubs share it
  const std::unique_ptr<v1::JobService::Stub> stub_;
  const std::unique_ptr<v1::TuningService::Stub> tuning_stub_;
  CancelToken stop_;  // cancelled by Stop
  Mutex mutex_;
  bool is_stopped_ DP_GUARDED_BY(mutex_) = false;
  /// The stream, Submit or Trace under way, if any; one at a time.
  grpc::ClientContext* stoppable_ DP_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_JOB_CLIENT_H_
