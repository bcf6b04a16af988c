// JobService over gRPC: every method is one handler of coordinator/rpc.
//
// Synchronous: a call, and so a watch, holds a thread of the server's pool.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_JOB_SERVICE_H_
#define DELTAPIPE_COORDINATOR_SERVICE_JOB_SERVICE_H_

#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.grpc.pb.h"

namespace deltapipe {

class JobServiceImpl : public v1::JobService::Service {
 public:
  /// `plane` outlives the server that serves this.
  explicit JobServiceImpl(ControlPlane* plane) : plane_(plane) {}

  grpc::Status SubmitJob(grpc::ServerContext* context,
                         const v1::SubmitJobRequest* request,
                         v1::Job* response) override;
  grpc::Status GetJob(grpc::ServerContext* context,
                      const v1::GetJobRequest* request,
                      v1::Job* response) override;
  grpc::Status ListJobs(grpc::ServerContext* context,
                        const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override;
  grpc::Status CancelJob(grpc::ServerContext* context,
                         const v1::CancelJobRequest* request,
                         v1::Job* response) override;
  grpc::Status PauseJob(grpc::ServerContext* context,
                        const v1::PauseJobRequest* request,
                        v1::Job* response) override;
  grpc::Status ResumeJob(grpc::ServerContext* context,
                         const v1::ResumeJobRequest* request,
                         v1::Job* response) override;
  grpc::Status RequestCheckpoint(grpc::ServerContext* context,
                                 const v1::RequestCheckpointRequest* request,
                                 v1::Job* response) override;
  grpc::Status DrainWorker(grpc::ServerContext* context,
                           const v1::DrainWorkerRequest* request,
                           v1::Worker* response) override;
  grpc::Status WatchJob(grpc::ServerContext* context,
                        const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override;
  grpc::Status GetPlan(grpc::ServerContext* context,
                       const v1::GetPlanRequest* request,
                       v1::Plan* response) override;
  grpc::Status ReadLogs(grpc::ServerContext* context,
                        const v1::ReadLogsRequest* request,
                        grpc::ServerWriter<v1::LogLine>* writer) override;
  grpc::Status ListWorkers(grpc::ServerContext* context,
                           const v1::ListWorkersRequest* request,
                           v1::ListWorkersResponse* response) override;
  grpc::Status GetVersion(grpc::ServerContext* context,
                          const v1::GetVersionRequest* request,
                          v1::Version* response) override;
  grpc::Status GetLedger(grpc::ServerContext* context,
                         const v1::GetLedgerRequest* request,
                         v1::JobLedger* response) override;
  grpc::Status GetMetrics(grpc::ServerContext* context,
                          const v1::GetMetricsRequest* request,
                          v1::JobMetrics* response) override;
  grpc::Status TraceJob(grpc::ServerContext* context,
                        const v1::TraceJobRequest* request,
                        v1::TraceJobResponse* response) override;

 private:
  ControlPlane* const plane_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_JOB_SERVICE_H_
