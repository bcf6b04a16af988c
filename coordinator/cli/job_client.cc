#include "coordinator/cli/job_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "base/tls/identity.h"
#include "coordinator/cli/watch_position.h"
#include "coordinator/service/rich_status.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;

constexpr seconds kCallLimit(10);
/// Storing a job waits for the coordinator's disk.
constexpr seconds kSubmitLimit(60);
/// The coordinator gives up first, and says why.
constexpr seconds kTraceLimit(11 * 60);
/// A change of tuning waits until every worker has it.
constexpr seconds kTuningLimit(60);
/// Between two connections that fail: shorter than the pauses of whoever waits
/// for a coordinator, who else would ask a channel that does not even try.
constexpr int kFirstBackoffMillis = 200;
constexpr int kLongestBackoffMillis = 1000;

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const ClientSecurity& security,
                                           absl::Status* setup) {
  auto credentials = MakeClientCredentials(address, security);
  *setup = credentials.status();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(-1);
  // Each client has its own connection, so that one that failed does not make
  // the next one wait.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstBackoffMillis);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestBackoffMillis);
  arguments.SetSslTargetNameOverride(kCoordinatorHost);
  // Without credentials every call fails at once.
  return grpc::CreateCustomChannel(
      address, credentials.ok() ? *credentials : nullptr, arguments);
}

void SetLimit(seconds limit, grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + limit);
}

/// Says that what comes next does not follow on what came before.
v1::JobEvent GapEvent() {
  v1::JobEvent event;
  event.set_kind("warning");
  event.set_time_millis(Clock::Real()->WallMillis());
  event.set_text(
      "some steps were made while nobody read their reports: they are missing "
      "here");
  return event;
}

v1::GetJobRequest GetRequest(const std::string& id) {
  v1::GetJobRequest request;
  request.set_id(id);
  return request;
}

}  // namespace

JobClient::JobClient(const std::string& address, const ClientSecurity& security)
    : address_(address),
      channel_(MakeChannel(address, security, &setup_)),
      stub_(v1::JobService::NewStub(channel_)),
      tuning_stub_(v1::TuningService::NewStub(channel_)) {}

absl::Status JobClient::ToStatus(const grpc::Status& status) const {
  if (!setup_.ok()) return setup_;
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    return absl::UnavailableError(absl::StrCat(
        "cannot reach a coordinator at ", address_, " (",
        status.error_message(),
        "): start one with 'deltapipe coordinator', or name yours with "
        "--coordinator HOST:PORT or DELTAPIPE_COORDINATOR; one with TLS takes "
        "--ca-file or --ca-hash, and others take neither"));
  }
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return absl::DeadlineExceededError(
        absl::StrCat("the coordinator at ", address_,
                     " did not answer in time: try again, or see its log"));
  }
  return FromGrpcStatus(status);
}

template <typename Service, typename Request, typename Response>
absl::StatusOr<Response> JobClient::Call(
    const std::unique_ptr<Service>& stub,
    grpc::Status (Service::*method)(grpc::ClientContext*, const Request&,
                                    Response*),
    const Request& request, seconds limit) {
  grpc::ClientContext context;
  SetLimit(limit, &context);
  Response response;
  const grpc::Status status =
      (stub.get()->*method)(&context, request, &response);
  if (!status.ok()) return ToStatus(status);
  return response;
}

template <typename Request, typename Response>
absl::StatusOr<Response> JobClient::Call(
    grpc::Status (v1::JobService::Stub::*method)(grpc::ClientContext*,
                                                 const Request&, Response*),
    const Request& request) {
  return Call(stub_, method, request, kCallLimit);
}

absl::StatusOr<v1::Job> JobClient::Submit(const v1::SubmitJobRequest& request) {
  grpc::ClientContext context;
  SetLimit(kSubmitLimit, &context);
  if (!MakeStoppable(&context)) {
    return absl::CancelledError("the submission was stopped");
  }
  v1::Job job;
  const grpc::Status status = stub_->SubmitJob(&context, request, &job);
  MakeUnstoppable();
  if (!status.ok()) return ToStatus(status);
  return job;
}

absl::StatusOr<v1::Job> JobClient::Get(const std::string& id) {
  return Call(&v1::JobService::Stub::GetJob, GetRequest(id));
}

absl::StatusOr<v1::ListJobsResponse> JobClient::List(
    const v1::ListJobsRequest& request) {
  return Call(&v1::JobService::Stub::ListJobs, request);
}

absl::StatusOr<v1::Job> JobClient::Cancel(const std::string& id,
                                          const std::string& reason) {
  v1::CancelJobRequest request;
  request.set_id(id);
  request.set_reason(reason);
  return Call(&v1::JobService::Stub::CancelJob, request);
}

absl::StatusOr<v1::Job> JobClient::Pause(const std::string& id,
                                         const std::string& reason) {
  v1::PauseJobRequest request;
  request.set_id(id);
  request.set_reason(reason);
  return Call(&v1::JobService::Stub::PauseJob, request);
}

absl::StatusOr<v1::Job> JobClient::Resume(const std::string& id) {
  v1::ResumeJobRequest request;
  request.set_id(id);
  return Call(&v1::JobService::Stub::ResumeJob, request);
}

absl::StatusOr<v1::Job> JobClient::RequestCheckpoint(const std::string& id) {
  v1::RequestCheckpointRequest request;
  request.set_id(id);
  return Call(&v1::JobService::Stub::RequestCheckpoint, request);
}

absl::StatusOr<v1::Worker> JobClient::DrainWorker(const std::string& worker_id,
                                                  const std::string& reason) {
  v1::DrainWorkerRequest request;
  request.set_worker_id(worker_id);
  request.set_reason(reason);
  return Call(&v1::JobService::Stub::DrainWorker, request);
}

absl::StatusOr<v1::Plan> JobClient::GetPlan(const std::string& id) {
  v1::GetPlanRequest request;
  request.set_id(id);
  return Call(&v1::JobService::Stub::GetPlan, request);
}

absl::StatusOr<v1::JobLedger> JobClient::GetLedger(const std::string& id) {
  v1::GetLedgerRequest request;
  request.set_id(id);
  return Call(&v1::JobService::Stub::GetLedger, request);
}

absl::StatusOr<v1::ListWorkersResponse> JobClient::ListWorkers() {
  return Call(&v1::JobService::Stub::ListWorkers, v1::ListWorkersRequest());
}

absl::StatusOr<v1::Version> JobClient::GetVersion() {
  return Call(&v1::JobService::Stub::GetVersion, v1::GetVersionRequest());
}

absl::StatusOr<v1::Tuning> JobClient::GetTuning(const std::string& job_id) {
  v1::GetTuningRequest request;
  request.set_job_id(job_id);
  return Call(tuning_stub_, &v1::TuningService::Stub::GetTuning, request,
              kCallLimit);
}

absl::StatusOr<v1::Tuning> JobClient::UpdateTuning(
    const v1::UpdateTuningRequest& request) {
  return Call(tuning_stub_, &v1::TuningService::Stub::UpdateTuning, request,
              kTuningLimit);
}

absl::StatusOr<v1::Tuning> JobClient::SetBudget(
    const v1::SetBudgetRequest& request) {
  return Call(tuning_stub_, &v1::TuningService::Stub::SetBudget, request,
              kTuningLimit);
}

absl::StatusOr<v1::JobMetrics> JobClient::GetMetrics(const std::string& id) {
  v1::GetMetricsRequest request;
  request.set_id(id);
  return Call(&v1::JobService::Stub::GetMetrics, request);
}

absl::StatusOr<v1::TraceJobResponse> JobClient::Trace(
    const v1::TraceJobRequest& request) {
  grpc::ClientContext context;
  SetLimit(kTraceLimit, &context);
  if (!MakeStoppable(&context)) {
    return absl::CancelledError("the trace was stopped");
  }
  v1::TraceJobResponse response;
  const grpc::Status status = stub_->TraceJob(&context, request, &response);
  MakeUnstoppable();
  if (!status.ok()) return ToStatus(status);
  return response;
}

template <typename Request, typename Item>
absl::Status JobClient::ReadStream(
    std::unique_ptr<grpc::ClientReader<Item>> (v1::JobService::Stub::*open)(
        grpc::ClientContext*, const Request&),
    const Request& request, const std::function<bool(const Item&)>& on_item) {
  grpc::ClientContext context;
  if (!MakeStoppable(&context)) {
    return absl::CancelledError("the stream was stopped");
  }
  const auto reader = (stub_.get()->*open)(&context, request);
  bool wants_more = true;
  Item item;
  while (wants_more && reader->Read(&item)) wants_more = on_item(item);
  if (!wants_more) context.TryCancel();
  const grpc::Status status = reader->Finish();
  MakeUnstoppable();
  return wants_more ? ToStatus(status) : absl::OkStatus();
}

absl::Status JobClient::Watch(
    const v1::WatchJobRequest& request,
    const std::function<bool(const v1::JobEvent&)>& on_event,
    Reconnection* reconnection) {
  v1::WatchJobRequest rest = request;
  rest.set_allow_bookmarks(true);
  WatchPosition position(request.after_sequence());
  while (true) {
    rest.set_after_sequence(position.after_sequence());
    bool has_read = false;
    const absl::Status status = ReadStream<v1::WatchJobRequest, v1::JobEvent>(
        &v1::JobService::Stub::WatchJob, rest, [&](const v1::JobEvent& event) {
          has_read = true;
          if (reconnection != nullptr) reconnection->OnAnswer();
          const WatchedEvent news = position.Add(event);
          if (news == WatchedEvent::kKnown) return true;
          if (news == WatchedEvent::kNewsAfterGap && !on_event(GapEvent())) {
            return false;
          }
          return on_event(event);
        });
    if (reconnection != nullptr && absl::IsUnavailable(status)) {
      DP_RETURN_IF_ERROR(AwaitReturn(status, reconnection));
      position.BreakOff();
      continue;
    }
    // A stream that is cut before its first event would be cut for ever.
    if (!absl::IsResourceExhausted(status) || !has_read) return status;
    if (!on_event(GapEvent())) return absl::OkStatus();
  }
}

absl::Status JobClient::AwaitReturn(const absl::Status& error,
                                    Reconnection* reconnection) {
  DP_ASSIGN_OR_RETURN(const Nanos when, reconnection->OnFailure(error));
  if (!reconnection->clock()->SleepUntil(when, &stop_)) {
    return absl::CancelledError("the wait for the coordinator was stopped");
  }
  return absl::OkStatus();
}

absl::Status JobClient::ReadLogs(
    const v1::ReadLogsRequest& request,
    const std::function<bool(const v1::LogLine&)>& on_line) {
  return ReadStream(&v1::JobService::Stub::ReadLogs, request, on_line);
}

bool JobClient::MakeStoppable(grpc::ClientContext* context) {
  MutexLock lock(&mutex_);
  if (is_stopped_) return false;
  stoppable_ = context;
  return true;
}

void JobClient::MakeUnstoppable() {
  MutexLock lock(&mutex_);
  stoppable_ = nullptr;
}

void JobClient::Stop() {
  stop_.Cancel();
  MutexLock lock(&mutex_);
  is_stopped_ = true;
  if (stoppable_ != nullptr) stoppable_->TryCancel();
}

}  // namespace deltapipe
