#include "coordinator/service/request_guard.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <stdlib.h>

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "coordinator/service/message_size.h"
#include "coordinator/service/peer_host.h"
#include "coordinator/service/rich_status.h"

namespace deltapipe {
namespace {

constexpr char kPath[] = ":path";
constexpr char kAuthorization[] = "authorization";
constexpr char kBearer[] = "Bearer ";
constexpr unsigned kLongestReload = 60;

/// gRPC has no setting for the least version of TLS. These ciphers are all that
/// it may use below 1.3, and they need an RSA key, which no certificate of ours
/// has: so nothing below 1.3 can be agreed on.
constexpr char kNoCipherBelowTls13[] = "ECDHE-RSA-AES256-GCM-SHA384";

template <typename Metadata>
std::string ValueOf(const Metadata& metadata, const char* key) {
  const auto found = metadata.find(key);
  return found == metadata.end()
             ? ""
             : std::string(found->second.data(), found->second.size());
}

template <typename Metadata>
Credentials ShownBy(const Metadata& metadata,
                    const grpc::AuthContext* context) {
  Credentials credentials;
  const std::string bearer = ValueOf(metadata, kAuthorization);
  if (absl::StartsWith(bearer, kBearer)) {
    credentials.token = bearer.substr(sizeof(kBearer) - 1);
  }
  if (context != nullptr) {
    const auto values =
        context->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
    if (!values.empty()) {
      credentials.certificate_pem.assign(values[0].data(), values[0].size());
    }
  }
  return credentials;
}

// "JobService.CancelJob" of "/deltapipe.v1.JobService/CancelJob".
std::string ShortName(absl::string_view path) {
  absl::ConsumePrefix(&path, "/");
  absl::ConsumePrefix(&path, "deltapipe.v1.");
  return absl::StrReplaceAll(path.substr(0, 200), {{"/", "."}});
}

class Guard : public grpc::AuthMetadataProcessor {
 public:
  explicit Guard(CoordinatorSecurity* security) : security_(security) {}

  // Reads a file at most when the tokens have changed.
  bool IsBlocking() const override { return true; }

  grpc::Status Process(const InputMetadata& metadata,
                       grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    const std::string path = ValueOf(metadata, kPath);
    const auto caller =
        security_->authorizer().Authorize(path, ShownBy(metadata, context));
    if (caller.ok()) return grpc::Status::OK;
    AuditEntry entry;
    entry.who = "nobody";
    entry.what = ShortName(path);
    entry.result = absl::StatusCodeToString(caller.status().code());
    entry.reason = std::string(caller.status().message());
    entry.is_refusal = true;
    security_->audit()->Add(entry);
    LOG_WARNING << "refused " << entry.what << ": " << entry.reason;
    return ToGrpcStatus(caller.status());
  }

 private:
  CoordinatorSecurity* const security_;
};

// What a request is about: the first of its fields that names something.
std::string ObjectOf(const google::protobuf::Message& request) {
  const google::protobuf::Descriptor* const type = request.GetDescriptor();
  const google::protobuf::Reflection* const fields = request.GetReflection();
  for (const char* name : {"id", "job_id", "worker_id", "name"}) {
    const auto* const field = type->FindFieldByName(name);
    if (field != nullptr && !field->is_repeated() &&
        field->cpp_type() ==
            google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
      return fields->GetString(request, field);
    }
  }
  for (const char* name : {"spec", "tuning"}) {
    const auto* const field = type->FindFieldByName(name);
    if (field != nullptr && !field->is_repeated() &&
        field->cpp_type() ==
            google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      return ObjectOf(fields->GetMessage(request, field));
    }
  }
  return "";
}

/// Writes down a call and its result; of calls that only read, those alone
/// whose message was too large.
class Auditor : public grpc::experimental::Interceptor {
 public:
  Auditor(CoordinatorSecurity* security, grpc::experimental::ServerRpcInfo* rpc,
          bool writes_all)
      : security_(security), rpc_(rpc), writes_all_(writes_all) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    using Point = grpc::experimental::InterceptionHookPoints;
    if (batch->QueryInterceptionHookPoint(Point::POST_RECV_MESSAGE) &&
        batch->GetRecvMessage() != nullptr) {
      const auto& message = *static_cast<const google::protobuf::Message*>(
          batch->GetRecvMessage());
      is_oversize_ = is_oversize_ || !CheckMessageSize(message).ok();
      if (!is_oversize_) object_ = ObjectOf(message);
    }
    if (batch->QueryInterceptionHookPoint(Point::PRE_SEND_STATUS) &&
        (writes_all_ || is_oversize_)) {
      Write(batch->GetSendStatus());
    }
    batch->Proceed();
  }

 private:
  void Write(const grpc::Status& status) {
    const grpc::ServerContextBase* const context = rpc_->server_context();
    const auto caller = CallerOf(*security_, rpc_->method(), *context);
    AuditEntry entry;
    entry.who = caller.ok() ? caller->name : "nobody";
    entry.from = PeerHost(context->peer());
    entry.what = ShortName(rpc_->method());
    entry.object = object_;
    entry.result = absl::StatusCodeToString(
        static_cast<absl::StatusCode>(status.error_code()));
    if (!status.ok()) entry.reason = status.error_message();
    entry.is_refusal = is_oversize_;
    security_->audit()->Add(entry);
    if (is_oversize_) {
      LOG_WARNING << "refused " << entry.what << " from " << entry.from << ": "
                  << entry.reason;
    }
  }

  CoordinatorSecurity* const security_;
  grpc::experimental::ServerRpcInfo* const rpc_;
  const bool writes_all_;
  std::string object_;
  bool is_oversize_ = false;
};

class AuditorFactory
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit AuditorFactory(CoordinatorSecurity* security)
      : security_(security) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* rpc) override {
    const MethodRule* const rule = FindRule(rpc->method());
    // Enrollment writes its own lines; of others than ours the type of the
    // messages is not known.
    const absl::string_view method = rpc->method();
    if (rule == nullptr || !absl::StartsWith(method, "/deltapipe.v1.") ||
        absl::StartsWith(method, "/deltapipe.v1.EnrollmentService/")) {
      return nullptr;
    }
    return new Auditor(security_, rpc, rule->is_audited);
  }

 private:
  CoordinatorSecurity* const security_;
};

}  // namespace

absl::StatusOr<Caller> CallerOf(const CoordinatorSecurity& security,
                                const std::string& method,
                                const grpc::ServerContextBase& context) {
  const auto shown = context.auth_context();
  return security.authorizer().Authorize(
      method, ShownBy(context.client_metadata(), shown.get()));
}

std::shared_ptr<grpc::ServerCredentials> MakeGuardedCredentials(
    CoordinatorSecurity* security) {
  // Before gRPC reads it, which it does once.
  setenv("GRPC_SSL_CIPHER_SUITES", kNoCipherBelowTls13, 1);
  const auto lifetime = std::chrono::duration_cast<std::chrono::seconds>(
      security->certificate_lifetime());
  const unsigned reload = static_cast<unsigned>(
      std::clamp<int64_t>(lifetime.count() / 12, 1, kLongestReload));
  const std::string file = security->own_pem_path();
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          file, file, reload));
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(
      GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_BUT_DONT_VERIFY);
  auto credentials = grpc::experimental::TlsServerCredentials(options);
  credentials->SetAuthMetadataProcessor(std::make_shared<Guard>(security));
  return credentials;
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeAuditor(CoordinatorSecurity* security) {
  return std::make_unique<AuditorFactory>(security);
}

}  // namespace deltapipe
