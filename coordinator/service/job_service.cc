#include "coordinator/service/job_service.h"

#include <utility>

#include "absl/status/statusor.h"
#include "coordinator/rpc/cancel_job.h"
#include "coordinator/rpc/drain_worker.h"
#include "coordinator/rpc/get_job.h"
#include "coordinator/rpc/get_ledger.h"
#include "coordinator/rpc/get_metrics.h"
#include "coordinator/rpc/get_plan.h"
#include "coordinator/rpc/get_version.h"
#include "coordinator/rpc/list_jobs.h"
#include "coordinator/rpc/list_workers.h"
#include "coordinator/rpc/pause_job.h"
#include "coordinator/rpc/read_logs.h"
#include "coordinator/rpc/request_checkpoint.h"
#include "coordinator/rpc/resume_job.h"
#include "coordinator/rpc/submit_job.h"
#include "coordinator/rpc/trace_job.h"
#include "coordinator/rpc/watch_job.h"
#include "coordinator/service/message_size.h"
#include "coordinator/service/rich_status.h"

namespace deltapipe {
namespace {

/// Fills `response` with what `handler` makes of a request that is not too
/// large.
template <typename Request, typename Response>
grpc::Status Answer(ControlPlane* plane,
                    absl::StatusOr<Response> (*handler)(ControlPlane*,
                                                        const Request&),
                    const Request& request, Response* response) {
  const absl::Status fits = CheckMessageSize(request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  absl::StatusOr<Response> result = handler(plane, request);
  if (!result.ok()) return ToGrpcStatus(result.status());
  *response = *std::move(result);
  return grpc::Status::OK;
}

}  // namespace

grpc::Status JobServiceImpl::SubmitJob(grpc::ServerContext*,
                                       const v1::SubmitJobRequest* request,
                                       v1::Job* response) {
  return Answer(plane_, deltapipe::SubmitJob, *request, response);
}

grpc::Status JobServiceImpl::GetJob(grpc::ServerContext*,
                                    const v1::GetJobRequest* request,
                                    v1::Job* response) {
  return Answer(plane_, deltapipe::GetJob, *request, response);
}

grpc::Status JobServiceImpl::ListJobs(grpc::ServerContext*,
                                      const v1::ListJobsRequest* request,
                                      v1::ListJobsResponse* response) {
  return Answer(plane_, deltapipe::ListJobs, *request, response);
}

grpc::Status JobServiceImpl::CancelJob(grpc::ServerContext*,
                                       const v1::CancelJobRequest* request,
                                       v1::Job* response) {
  return Answer(plane_, deltapipe::CancelJob, *request, response);
}

grpc::Status JobServiceImpl::PauseJob(grpc::ServerContext*,
                                      const v1::PauseJobRequest* request,
                                      v1::Job* response) {
  return Answer(plane_, deltapipe::PauseJob, *request, response);
}

grpc::Status JobServiceImpl::ResumeJob(grpc::ServerContext*,
                                       const v1::ResumeJobRequest* request,
                                       v1::Job* response) {
  return Answer(plane_, deltapipe::ResumeJob, *request, response);
}

grpc::Status JobServiceImpl::RequestCheckpoint(
    grpc::ServerContext*, const v1::RequestCheckpointRequest* request,
    v1::Job* response) {
  return Answer(plane_, deltapipe::RequestCheckpoint, *request, response);
}

grpc::Status JobServiceImpl::DrainWorker(grpc::ServerContext*,
                                         const v1::DrainWorkerRequest* request,
                                         v1::Worker* response) {
  return Answer(plane_, deltapipe::DrainWorker, *request, response);
}

grpc::Status JobServiceImpl::WatchJob(
    grpc::ServerContext* context, const v1::WatchJobRequest* request,
    grpc::ServerWriter<v1::JobEvent>* writer) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  return ToGrpcStatus(deltapipe::WatchJob(
      plane_, *request,
      [writer](const v1::JobEvent& event) { return writer->Write(event); },
      [context] { return context->IsCancelled(); }));
}

grpc::Status JobServiceImpl::GetPlan(grpc::ServerContext*,
                                     const v1::GetPlanRequest* request,
                                     v1::Plan* response) {
  return Answer(plane_, deltapipe::GetPlan, *request, response);
}

grpc::Status JobServiceImpl::ReadLogs(grpc::ServerContext* context,
                                      const v1::ReadLogsRequest* request,
                                      grpc::ServerWriter<v1::LogLine>* writer) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  return ToGrpcStatus(deltapipe::ReadLogs(
      plane_, *request,
      [writer](const v1::LogLine& line) { return writer->Write(line); },
      [context] { return context->IsCancelled(); }));
}

grpc::Status JobServiceImpl::ListWorkers(grpc::ServerContext*,
                                         const v1::ListWorkersRequest* request,
                                         v1::ListWorkersResponse* response) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  *response = deltapipe::ListWorkers(plane_, *request);
  return grpc::Status::OK;
}

grpc::Status JobServiceImpl::GetVersion(grpc::ServerContext*,
                                        const v1::GetVersionRequest* request,
                                        v1::Version* response) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  *response = deltapipe::GetVersion(*request);
  return grpc::Status::OK;
}

grpc::Status JobServiceImpl::GetLedger(grpc::ServerContext*,
                                       const v1::GetLedgerRequest* request,
                                       v1::JobLedger* response) {
  return Answer(plane_, deltapipe::GetLedger, *request, response);
}

grpc::Status JobServiceImpl::GetMetrics(grpc::ServerContext*,
                                        const v1::GetMetricsRequest* request,
                                        v1::JobMetrics* response) {
  return Answer(plane_, deltapipe::GetMetrics, *request, response);
}

grpc::Status JobServiceImpl::TraceJob(grpc::ServerContext* context,
                                      const v1::TraceJobRequest* request,
                                      v1::TraceJobResponse* response) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  absl::StatusOr<v1::TraceJobResponse> traced = deltapipe::TraceJob(
      plane_, *request, [context] { return context->IsCancelled(); });
  if (!traced.ok()) return ToGrpcStatus(traced.status());
  *response = *std::move(traced);
  return grpc::Status::OK;
}

}  // namespace deltapipe
