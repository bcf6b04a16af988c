#include "coordinator/security/authorizer.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

// Reading is a viewer's, the course of jobs an operator's, what concerns
// everybody's machines an admin's.
constexpr MethodRule kRules[] = {
    {"/deltapipe.v1.JobService/SubmitJob", Need::kOperator, true},
    {"/deltapipe.v1.JobService/GetJob", Need::kViewer, false},
    {"/deltapipe.v1.JobService/ListJobs", Need::kViewer, false},
    {"/deltapipe.v1.JobService/CancelJob", Need::kOperator, true},
    {"/deltapipe.v1.JobService/PauseJob", Need::kOperator, true},
    {"/deltapipe.v1.JobService/ResumeJob", Need::kOperator, true},
    {"/deltapipe.v1.JobService/RequestCheckpoint", Need::kOperator, true},
    {"/deltapipe.v1.JobService/WatchJob", Need::kViewer, false},
    {"/deltapipe.v1.JobService/GetPlan", Need::kViewer, false},
    {"/deltapipe.v1.JobService/GetLedger", Need::kViewer, false},
    {"/deltapipe.v1.JobService/ReadLogs", Need::kViewer, false},
    {"/deltapipe.v1.JobService/ListWorkers", Need::kViewer, false},
    {"/deltapipe.v1.JobService/DrainWorker", Need::kAdmin, true},
    // Probes ask it for years, and tokens expire.
    {"/deltapipe.v1.JobService/GetVersion", Need::kNothing, false},
    {"/deltapipe.v1.JobService/GetMetrics", Need::kViewer, false},
    {"/deltapipe.v1.JobService/TraceJob", Need::kOperator, true},
    {"/deltapipe.v1.TuningService/GetTuning", Need::kViewer, false},
    {"/deltapipe.v1.TuningService/UpdateTuning", Need::kOperator, true},
    {"/deltapipe.v1.TuningService/SetBudget", Need::kOperator, true},
    {"/deltapipe.v1.ControlService/Session", Need::kWorker, true},
    // Enrollment writes its own lines: it knows who joined.
    {"/deltapipe.v1.EnrollmentService/Enroll", Need::kNothing, false},
    {"/deltapipe.v1.EnrollmentService/Renew", Need::kWorker, false},
    {"/grpc.health.v1.Health/Check", Need::kNothing, false},
    {"/grpc.health.v1.Health/Watch", Need::kNothing, false},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
     Need::kViewer, false},
};

bool Suffices(TokenScope scope, Need need) {
  switch (need) {
    case Need::kViewer:
      return scope != TokenScope::kJoin;
    case Need::kOperator:
      return scope == TokenScope::kOperator || scope == TokenScope::kAdmin;
    case Need::kAdmin:
      return scope == TokenScope::kAdmin;
    default:
      return false;
  }
}

const char* ScopeNeeded(Need need) {
  return need == Need::kViewer     ? "viewer"
         : need == Need::kOperator ? "operator"
                                   : "admin";
}

}  // namespace

const MethodRule* FindRule(absl::string_view path) {
  for (const MethodRule& rule : kRules) {
    if (path == rule.path) return &rule;
  }
  return nullptr;
}

absl::StatusOr<Identity> Authorizer::WorkerOf(
    const std::string& certificate_pem) const {
  if (certificate_pem.empty()) {
    return absl::UnauthenticatedError(
        "this call is for workers, which show a certificate, and there is "
        "none: join with `deltapipe-worker --join-token`");
  }
  DP_ASSIGN_OR_RETURN(const Certificate certificate,
                      Certificate::FromPem(certificate_pem));
  DP_RETURN_IF_ERROR(
      certificate.CheckSignedBy(*authority_, clock_->WallMillis()));
  DP_ASSIGN_OR_RETURN(Identity identity, certificate.identity());
  if (identity.cluster != cluster_ || !identity.is_worker()) {
    return absl::PermissionDeniedError(
        absl::StrCat("this call is for workers of the cluster ", cluster_,
                     ", and the certificate is that of ", identity.ToString()));
  }
  return identity;
}

absl::StatusOr<Caller> Authorizer::Authorize(
    const std::string& path, const Credentials& credentials) const {
  const MethodRule* const rule = FindRule(path);
  if (rule == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("there is no method ", path.substr(0, 200)));
  }
  Caller caller;
  if (rule->need == Need::kNothing) return caller;
  if (rule->need == Need::kWorker) {
    DP_ASSIGN_OR_RETURN(const Identity identity,
                        WorkerOf(credentials.certificate_pem));
    caller.name = caller.worker = identity.worker;
    return caller;
  }
  if (credentials.token.empty()) {
    return absl::UnauthenticatedError(
        absl::StrCat("this coordinator asks for a token with the scope ",
                     ScopeNeeded(rule->need),
                     ": give --token-file FILE, or DELTAPIPE_TOKEN_FILE"));
  }
  DP_ASSIGN_OR_RETURN(const TokenRecord token,
                      tokens_->Check(credentials.token));
  caller.name = absl::StrCat(token.name, " (", ScopeName(token.scope), ", ",
                             token.id, ")");
  if (!Suffices(token.scope, rule->need)) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the token of ", caller.name, " may not call ", path.substr(14),
        ": it takes the scope ", ScopeNeeded(rule->need)));
  }
  return caller;
}

}  // namespace deltapipe
