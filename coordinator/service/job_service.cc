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
#include "coordinator/service/rich_status.h"

namespace deltapipe {
namespace {

template <typename Response>
grpc::Status Answer(absl::StatusOr<Response> result, Response* response) {
  if (!result.ok()) return ToGrpcStatus(result.status());
  *response = *std::move(result);
  return grpc::Status::OK;
}

}  // namespace

grpc::Status JobServiceImpl::SubmitJob(grpc::ServerContext*,
                                       const v1::SubmitJobRequest* request,
                                       v1::Job* response) {
  return Answer(deltapipe::SubmitJob(plane_, *request), response);
}

grpc::Status JobServiceImpl::GetJob(grpc::ServerContext*,
                                    const v1::GetJobRequest* request,
                                    v1::Job* response) {
  return Answer(deltapipe::GetJob(plane_, *request), response);
}

grpc::Status JobServiceImpl::ListJobs(grpc::ServerContext*,
                                      const v1::ListJobsRequest* request,
                                      v1::ListJobsResponse* response) {
  return Answer(deltapipe::ListJobs(plane_, *request), response);
}

grpc::Status JobServiceImpl::CancelJob(grpc::ServerContext*,
                                       const v1::CancelJobRequest* request,
                                       v1::Job* response) {
  return Answer(deltapipe::CancelJob(plane_, *request), response);
}

grpc::Status JobServiceImpl::PauseJob(grpc::ServerContext*,
                                      const v1::PauseJobRequest* request,
                                      v1::Job* response) {
  return Answer(deltapipe::PauseJob(plane_, *request), response);
}

grpc::Status JobServiceImpl::ResumeJob(grpc::ServerContext*,
                                       const v1::ResumeJobRequest* request,
                                       v1::Job* response) {
  return Answer(deltapipe::ResumeJob(plane_, *request), response);
}

grpc::Status JobServiceImpl::RequestCheckpoint(
    grpc::ServerContext*, const v1::RequestCheckpointRequest* request,
    v1::Job* response) {
  return Answer(deltapipe::RequestCheckpoint(plane_, *request), response);
}

grpc::Status JobServiceImpl::DrainWorker(grpc::ServerContext*,
                                         const v1::DrainWorkerRequest* request,
                                         v1::Worker* response) {
  return Answer(deltapipe::DrainWorker(plane_, *request), response);
}

grpc::Status JobServiceImpl::WatchJob(
    grpc::ServerContext* context, const v1::WatchJobRequest* request,
    grpc::ServerWriter<v1::JobEvent>* writer) {
  return ToGrpcStatus(deltapipe::WatchJob(
      plane_, *request,
      [writer](const v1::JobEvent& event) { return writer->Write(event); },
      [context] { return context->IsCancelled(); }));
}

grpc::Status JobServiceImpl::GetPlan(grpc::ServerContext*,
                                     const v1::GetPlanRequest* request,
                                     v1::Plan* response) {
  return Answer(deltapipe::GetPlan(plane_, *request), response);
}

grpc::Status JobServiceImpl::ReadLogs(grpc::ServerContext* context,
                                      const v1::ReadLogsRequest* request,
                                      grpc::ServerWriter<v1::LogLine>* writer) {
  return ToGrpcStatus(deltapipe::ReadLogs(
      plane_, *request,
      [writer](const v1::LogLine& line) { return writer->Write(line); },
      [context] { return context->IsCancelled(); }));
}

grpc::Status JobServiceImpl::ListWorkers(grpc::ServerContext*,
                                         const v1::ListWorkersRequest* request,
                                         v1::ListWorkersResponse* response) {
  *response = deltapipe::ListWorkers(plane_, *request);
  return grpc::Status::OK;
}

grpc::Status JobServiceImpl::GetVersion(grpc::ServerContext*,
                                        const v1::GetVersionRequest* request,
                                        v1::Version* response) {
  *response = deltapipe::GetVersion(*request);
  return grpc::Status::OK;
}

grpc::Status JobServiceImpl::GetLedger(grpc::ServerContext*,
                                       const v1::GetLedgerRequest* request,
                                       v1::JobLedger* response) {
  return Answer(deltapipe::GetLedger(plane_, *request), response);
}

grpc::Status JobServiceImpl::GetMetrics(grpc::ServerContext*,
                                        const v1::GetMetricsRequest* request,
                                        v1::JobMetrics* response) {
  return Answer(deltapipe::GetMetrics(plane_, *request), response);
}

grpc::Status JobServiceImpl::TraceJob(grpc::ServerContext* context,
                                      const v1::TraceJobRequest* request,
                                      v1::TraceJobResponse* response) {
  return Answer(
      deltapipe::TraceJob(plane_, *request,
                          [context] { return context->IsCancelled(); }),
      response);
}

}  // namespace deltapipe
