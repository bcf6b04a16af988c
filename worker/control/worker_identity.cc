#include "worker/control/worker_identity.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/tls/certificate_authority.h"
#include "base/tls/key_pair.h"
#include "base/tls/pinned_authority.h"
#include "base/tls/private_file.h"
#include "proto/deltapipe/v1/enrollment.grpc.pb.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kCallLimit(20);

absl::Status FromGrpc(const grpc::Status& status,
                      const std::string& coordinator) {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE ||
      status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return absl::UnavailableError(absl::StrCat(
        "no coordinator answers at ", coordinator, " over TLS (",
        status.error_message(),
        "): check the address, --ca-hash and that `deltapipe coordinator` runs "
        "there with TLS"));
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

class GrpcIdentity : public WorkerIdentity {
 public:
  explicit GrpcIdentity(IdentityOptions options)
      : options_(std::move(options)) {}
  ~GrpcIdentity() override { stopped_.Cancel(); }

  absl::Status Start() {
    if (!Load()) DP_RETURN_IF_ERROR(Enroll());
    LOG_INFO << "this is " << context()->identity().ToString()
             << ", certified until "
             << UtcText(context()->certificate().not_after_millis());
    renewer_ = Thread("renew-identity", [this] { RenewLoop(); });
    return absl::OkStatus();
  }

  const std::string& worker_id() const override { return worker_id_; }
  std::shared_ptr<const TlsContext> context() const override {
    return current_->Get();
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials() const override {
    grpc::SslCredentialsOptions ssl;
    MutexLock lock(&mutex_);
    ssl.pem_root_certs = authority_pem_;
    ssl.pem_private_key = key_pem_;
    ssl.pem_cert_chain = certificate_pem_;
    return grpc::SslCredentials(ssl);
  }

 private:
  std::string path() const { return options_.folder + "/identity.pem"; }
  std::string authority_path() const {
    return options_.folder + "/authority.pem";
  }

  /// Whether a former life left an identity that still holds.
  bool Load() {
    if (options_.folder.empty()) return false;
    const auto pem = ReadPrivateFile(path());
    const auto authority = ReadPrivateFile(authority_path());
    if (!pem.ok() || !authority.ok()) {
      for (const absl::Status& status : {pem.status(), authority.status()}) {
        if (!status.ok() && !absl::IsNotFound(status)) {
          LOG_WARNING << "joining anew: " << status.message();
        }
      }
      return false;
    }
    const auto context = TlsContext::Create(*pem, *authority, options_.clock);
    const absl::Status checked =
        context.ok()
            ? (*context)->certificate().CheckSignedBy(
                  (*context)->authority(), options_.clock->WallMillis())
            : context.status();
    if (!checked.ok()) {
      LOG_WARNING << "joining anew: " << checked.message();
      return false;
    }
    const size_t end_of_key = pem->find("-----BEGIN CERTIFICATE");
    Take(*context, pem->substr(0, end_of_key), pem->substr(end_of_key),
         *authority);
    return true;
  }

  void Take(std::shared_ptr<const TlsContext> context, std::string key,
            std::string certificate, std::string authority) {
    if (current_ == nullptr) {
      worker_id_ = context->identity().worker;
      current_ = std::make_unique<CurrentTlsContext>(std::move(context));
    } else {
      current_->Set(std::move(context));
    }
    MutexLock lock(&mutex_);
    key_pem_ = std::move(key);
    certificate_pem_ = std::move(certificate);
    authority_pem_ = std::move(authority);
  }

  absl::Status Enroll() {
    if (options_.join_token.empty()) {
      return absl::InvalidArgumentError(
          "this worker has no identity yet: give the line that the coordinator "
          "printed, with --join-token (or --join-token-file) and --ca-hash");
    }
    std::string authority = options_.authority_pem;
    if (authority.empty()) {
      if (options_.authority_hash.empty()) {
        return absl::InvalidArgumentError(
            "whom to give the token to is not known: give --ca-hash, as the "
            "coordinator printed it, or --ca-file");
      }
      DP_ASSIGN_OR_RETURN(
          authority,
          FetchPinnedAuthority(options_.coordinator, options_.authority_hash,
                               options_.clock, Deadline::After(kCallLimit)));
    }
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = authority;
    v1::EnrollRequest request;
    request.set_join_token(options_.join_token);
    request.set_worker_id(options_.wanted_name);
    return Ask(
        grpc::SslCredentials(ssl),
        [&](v1::EnrollmentService::Stub* stub, grpc::ClientContext* context,
            const std::string& signing, v1::Enrollment* answer) {
          request.set_signing_request(signing);
          return stub->Enroll(context, request, answer);
        });
  }

  absl::Status Renew() {
    return Ask(
        credentials(),
        [](v1::EnrollmentService::Stub* stub, grpc::ClientContext* context,
           const std::string& signing, v1::Enrollment* answer) {
          v1::RenewRequest request;
          request.set_signing_request(signing);
          return stub->Renew(context, request, answer);
        });
  }

  template <typename Call>
  absl::Status Ask(std::shared_ptr<grpc::ChannelCredentials> credentials,
                   const Call& call) {
    DP_ASSIGN_OR_RETURN(const KeyPair key, KeyPair::Generate());
    DP_ASSIGN_OR_RETURN(const std::string key_pem, key.ToPem());
    DP_ASSIGN_OR_RETURN(const std::string signing, key.MakeSigningRequest());
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetSslTargetNameOverride(kCoordinatorHost);
    const auto stub = v1::EnrollmentService::NewStub(grpc::CreateCustomChannel(
        options_.coordinator, credentials, arguments));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kCallLimit);
    v1::Enrollment answer;
    const grpc::Status status = call(stub.get(), &context, signing, &answer);
    if (!status.ok()) return FromGrpc(status, options_.coordinator);
    const std::string pem = key_pem + answer.certificate();
    DP_ASSIGN_OR_RETURN(
        auto made, TlsContext::Create(pem, answer.authority(), options_.clock));
    DP_RETURN_IF_ERROR(made->certificate().CheckSignedBy(
        made->authority(), options_.clock->WallMillis()));
    if (!options_.folder.empty()) {
      DP_RETURN_IF_ERROR(MakePrivateFolder(options_.folder));
      DP_RETURN_IF_ERROR(
          WritePrivateFile(authority_path(), answer.authority()));
      DP_RETURN_IF_ERROR(WritePrivateFile(path(), pem));
    }
    Take(std::move(made), key_pem, answer.certificate(), answer.authority());
    return absl::OkStatus();
  }

  void RenewLoop() {
    while (true) {
      const std::shared_ptr<const TlsContext> held = current_->Get();
      const Certificate& now = held->certificate();
      const milliseconds lifetime(now.not_after_millis() -
                                  now.not_before_millis() -
                                  kClockSlack.count());
      const milliseconds left(now.not_after_millis() -
                              options_.clock->WallMillis());
      // At two thirds; when that has failed, again from time to time.
      const milliseconds pause =
          std::max({left - lifetime / 3, lifetime / 12, milliseconds(200)});
      if (!options_.clock->SleepUntil(options_.clock->Now() + pause,
                                      &stopped_)) {
        return;
      }
      const absl::Status renewed = Renew();
      if (renewed.ok()) {
        LOG_INFO << "renewed the certificate until "
                 << UtcText(current_->Get()->certificate().not_after_millis());
      } else {
        LOG_WARNING << "the certificate was not renewed, trying again: "
                    << renewed.message();
      }
    }
  }

  const IdentityOptions options_;
  std::string worker_id_;  // the same after each renewal
  std::unique_ptr<CurrentTlsContext> current_;

  mutable Mutex mutex_;
  std::string key_pem_ DP_GUARDED_BY(mutex_);
  std::string certificate_pem_ DP_GUARDED_BY(mutex_);
  std::string authority_pem_ DP_GUARDED_BY(mutex_);

  CancelToken stopped_;
  Thread renewer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerIdentity>> WorkerIdentity::Obtain(
    IdentityOptions options) {
  auto identity = std::make_unique<GrpcIdentity>(std::move(options));
  DP_RETURN_IF_ERROR(identity->Start());
  return std::unique_ptr<WorkerIdentity>(std::move(identity));
}

}  // namespace deltapipe
