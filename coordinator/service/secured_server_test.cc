// The coordinator's server with TLS, over loopback: what is let in, and what is
// refused and written down.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/file.h"
#include "base/tls/certificate_authority.h"
#include "base/tls/openssl_handle.h"
#include "base/tls/pinned_authority.h"
#include "base/tls/private_file.h"
#include "base/version.h"
#include "coordinator/security/coordinator_security.h"
#include "coordinator/service/control_plane_server.h"
#include "coordinator/spec/job_spec.h"
#include "coordinator/store/memory_job_store.h"
#include "proto/deltapipe/v1/admin.grpc.pb.h"
#include "proto/deltapipe/v1/control.grpc.pb.h"
#include "proto/deltapipe/v1/enrollment.grpc.pb.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Code = grpc::StatusCode;

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::seconds(30));
}

class SecuredServerTest : public ::testing::Test {
 protected:
  SecuredServerTest() {
    SecurityOptions options;
    options.folder = ::testing::TempDir() + "/secured-XXXXXX";
    EXPECT_NE(mkdtemp(&options.folder[0]), nullptr);
    folder_ = options.folder;
    security_ = CoordinatorSecurity::Open(options).value();
    authority_ = ReadFile(security_->authority_pem_path()).value();
    ControlPlaneOptions plane;
    plane.store = std::make_unique<MemoryJobStore>();
    plane.roster.version = kVersion;
    // Of the whole check only what concerns the name.
    plane.check_spec = [](const v1::JobSpec& spec) {
      std::vector<std::string> wrong;
      for (const SpecViolation& violation : ValidateJobSpec(spec)) {
        if (violation.field == "name") wrong.push_back(violation.ToString());
      }
      return wrong;
    };
    auto server = ControlPlaneServer::Start({"127.0.0.1", 0}, false,
                                            std::move(plane), security_.get());
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::shared_ptr<grpc::Channel> Connect(const std::string& key = "",
                                         const std::string& certificate = "") {
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = authority_;
    ssl.pem_private_key = key;
    ssl.pem_cert_chain = certificate;
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride(kCoordinatorHost);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(server_->address(),
                                     grpc::SslCredentials(ssl), arguments);
  }

  // A certificate as this cluster's authority, or another, would have made it
  // `age` ago; then opens a stream with it and says to be `says`.
  grpc::Status Greet(const CertificateAuthority& authority,
                     const std::string& worker, const std::string& says,
                     std::chrono::milliseconds age) {
    const KeyPair key = KeyPair::Generate().value();
    CertificateOrder order;
    order.identity = {authority.cluster(), worker};
    order.lifetime = std::chrono::hours(1);
    const std::string certificate =
        authority
            .Sign(key.MakeSigningRequest().value(), order,
                  Clock::Real()->WallMillis() - age.count())
            .value();
    auto stub =
        v1::ControlService::NewStub(Connect(key.ToPem().value(), certificate));
    grpc::ClientContext context;
    SetDeadline(&context);
    auto stream = stub->Session(&context);
    v1::WorkerMessage hello;
    hello.mutable_hello()->set_version(kVersion);
    hello.mutable_hello()->set_data_address("127.0.0.1:1");
    hello.mutable_hello()->set_worker_id(says);
    v1::CoordinatorMessage answer;
    if (stream->Write(hello) && stream->Read(&answer)) {
      welcomed_as_ = answer.welcome().worker_id();
      context.TryCancel();
    }
    return stream->Finish();
  }

  CertificateAuthority OwnAuthority() {
    return CertificateAuthority::FromPem(
               ReadPrivateFile(folder_ + "/authority.key").value(), authority_)
        .value();
  }

  grpc::Status Submit(TokenScope scope, const std::string& name) {
    NewToken wanted;
    wanted.name = "alice";
    wanted.scope = scope;
    const std::string token =
        security_->tokens()->Create(wanted).value().secret;
    grpc::ClientContext context;
    SetDeadline(&context);
    context.AddMetadata("authorization", "Bearer " + token);
    v1::SubmitJobRequest request;
    request.mutable_spec()->set_name(name);
    v1::Job job;
    return v1::JobService::NewStub(Connect())->SubmitJob(&context, request,
                                                         &job);
  }
  grpc::Status Submit(TokenScope scope, size_t name_bytes) {
    return Submit(scope, std::string(name_bytes, 'n'));
  }

  std::string Audit() { return ReadFile(folder_ + "/audit.ndjson").value(); }

  std::string folder_, authority_, welcomed_as_;
  std::unique_ptr<CoordinatorSecurity> security_;
  std::unique_ptr<ControlPlaneServer> server_;
};

TEST_F(SecuredServerTest, AWorkerIsWelcomeUnderTheNameOfItsCertificate) {
  Greet(OwnAuthority(), "worker-3", "worker-3", std::chrono::hours(0));

  EXPECT_EQ(welcomed_as_, "worker-3");
}

TEST_F(SecuredServerTest, AWorkerThatSaysItIsAnotherIsRefused) {
  const grpc::Status status =
      Greet(OwnAuthority(), "worker-3", "worker-4", std::chrono::hours(0));

  EXPECT_EQ(status.error_code(), Code::PERMISSION_DENIED);
  EXPECT_THAT(status.error_message(),
              HasSubstr("is 'worker-4', and its certificate is that of "
                        "worker-3"));
}

TEST_F(SecuredServerTest, AnExpiredCertificateIsRefusedAndWrittenDown) {
  const grpc::Status status =
      Greet(OwnAuthority(), "worker-3", "worker-3", std::chrono::hours(2));

  EXPECT_EQ(status.error_code(), Code::UNAUTHENTICATED);
  EXPECT_THAT(status.error_message(), HasSubstr("expired at"));
  EXPECT_THAT(Audit(), HasSubstr("worker-3 expired at"));
}

TEST_F(SecuredServerTest, AnotherAuthoritysCertificateIsRefused) {
  const auto other = CertificateAuthority::Create(security_->cluster(),
                                                  Clock::Real()->WallMillis())
                         .value();

  const grpc::Status status =
      Greet(other, "worker-3", "worker-3", std::chrono::hours(0));

  EXPECT_EQ(status.error_code(), Code::PERMISSION_DENIED);
  EXPECT_THAT(Audit(), HasSubstr("was not made by the authority"));
}

TEST_F(SecuredServerTest, ScopesAreAskedForAndResultsWrittenDown) {
  EXPECT_EQ(Submit(TokenScope::kViewer, 4).error_code(),
            Code::PERMISSION_DENIED);
  EXPECT_EQ(Submit(TokenScope::kOperator, 4).error_code(), Code::OK);

  EXPECT_THAT(Audit(), HasSubstr("\"result\":\"PERMISSION_DENIED\""));
  EXPECT_THAT(Audit(), HasSubstr("\"object\":\"nnnn\",\"result\":\"OK\""));
  EXPECT_THAT(Audit(), Not(HasSubstr("dpt_")));
}

TEST_F(SecuredServerTest, AnOversizeMessageIsRefused) {
  const grpc::Status status = Submit(TokenScope::kOperator, 5 << 20);

  EXPECT_EQ(status.error_code(), Code::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("expected at most 4194304"));
  EXPECT_THAT(Audit(), AllOf(HasSubstr("\"what\":\"JobService.SubmitJob\""),
                             HasSubstr("\"result\":\"RESOURCE_EXHAUSTED\""),
                             HasSubstr("expected at most 4194304")));
  EXPECT_TRUE(server_->plane()->store()->ListJobs(JobQuery())->empty());
}

TEST_F(SecuredServerTest, AnOversizeMessageOfACallThatOnlyReadsIsWrittenDown) {
  const std::string token =
      security_->tokens()->Create({"eve", TokenScope::kViewer}).value().secret;
  grpc::ClientContext context;
  SetDeadline(&context);
  context.AddMetadata("authorization", "Bearer " + token);
  v1::GetJobRequest request;
  request.set_id(std::string(5 << 20, 'n'));
  v1::Job job;

  const grpc::Status status =
      v1::JobService::NewStub(Connect())->GetJob(&context, request, &job);

  EXPECT_EQ(status.error_code(), Code::RESOURCE_EXHAUSTED);
  EXPECT_THAT(Audit(), AllOf(HasSubstr("\"who\":\"eve"),
                             HasSubstr("\"what\":\"JobService.GetJob\""),
                             HasSubstr("RESOURCE_EXHAUSTED")));
}

TEST_F(SecuredServerTest, AnOversizeAttemptToJoinIsWrittenDown) {
  v1::EnrollRequest request;
  request.set_join_token(std::string(5 << 20, 'n'));
  v1::Enrollment answer;
  grpc::ClientContext context;
  SetDeadline(&context);

  const grpc::Status status = v1::EnrollmentService::NewStub(Connect())->Enroll(
      &context, request, &answer);

  EXPECT_EQ(status.error_code(), Code::RESOURCE_EXHAUSTED);
  EXPECT_THAT(Audit(), AllOf(HasSubstr("EnrollmentService.Enroll"),
                             HasSubstr("RESOURCE_EXHAUSTED")));
}

TEST_F(SecuredServerTest, WhatIsBeyondTheReceiversLimitIsRefusedUnread) {
  const grpc::Status status = Submit(TokenScope::kOperator, 9 << 20);

  EXPECT_EQ(status.error_code(), Code::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("larger than max"));
}

TEST_F(SecuredServerTest, AJobNamedLikeAPathIsRefusedAndWrittenDown) {
  const grpc::Status status =
      Submit(TokenScope::kOperator, std::string("../../etc/passwd"));

  EXPECT_EQ(status.error_code(), Code::INVALID_ARGUMENT);
  EXPECT_THAT(Audit(), HasSubstr("\"object\":\"../../etc/passwd\",\"result\":"
                                 "\"INVALID_ARGUMENT\""));
}

TEST_F(SecuredServerTest, AnIdLikeAPathIsNoJobAndThatIsWrittenDown) {
  const std::string token = security_->tokens()
                                ->Create({"alice", TokenScope::kOperator})
                                .value()
                                .secret;
  grpc::ClientContext context;
  SetDeadline(&context);
  context.AddMetadata("authorization", "Bearer " + token);
  v1::RequestCheckpointRequest request;
  request.set_id("../../etc");
  v1::Job job;

  const grpc::Status status =
      v1::JobService::NewStub(Connect())->RequestCheckpoint(&context, request,
                                                            &job);

  EXPECT_EQ(status.error_code(), Code::NOT_FOUND);
  EXPECT_THAT(Audit(), HasSubstr("\"object\":\"../../etc\",\"result\":"
                                 "\"NOT_FOUND\""));
}

TEST_F(SecuredServerTest, APathThatAWorkerRefusesIsWrittenDown) {
  const KeyPair key = KeyPair::Generate().value();
  const CertificateAuthority authority = OwnAuthority();
  CertificateOrder order;
  order.identity = {authority.cluster(), "worker-3"};
  order.lifetime = std::chrono::hours(1);
  const std::string certificate = authority
                                      .Sign(key.MakeSigningRequest().value(),
                                            order, Clock::Real()->WallMillis())
                                      .value();
  auto stub =
      v1::ControlService::NewStub(Connect(key.ToPem().value(), certificate));
  grpc::ClientContext context;
  SetDeadline(&context);
  auto stream = stub->Session(&context);
  v1::WorkerMessage message;
  message.mutable_hello()->set_version(kVersion);
  message.mutable_hello()->set_data_address("127.0.0.1:1");
  message.mutable_hello()->set_worker_id("worker-3");
  v1::CoordinatorMessage answer;
  ASSERT_TRUE(stream->Write(message) && stream->Read(&answer));
  v1::AssignmentDone& done = *message.mutable_done();
  done.set_job_id("text-1");
  done.set_error_code(static_cast<int>(absl::StatusCode::kPermissionDenied));
  done.set_error_message("data.path '../a' leads out");

  stream->Write(message);
  stream->WritesDone();
  stream->Finish();

  EXPECT_THAT(Audit(), HasSubstr("\"who\":\"worker-3\",\"from\":\"127.0.0.1\","
                                 "\"what\":\"ControlService.AssignmentDone\","
                                 "\"object\":\"text-1\",\"result\":"
                                 "\"PERMISSION_DENIED\",\"reason\":\"data.path "
                                 "'../a' leads out\""));
}

TEST_F(SecuredServerTest, AnExpiredJoinTokenIsRefusedAndWrittenDown) {
  v1::EnrollRequest request;
  request.set_join_token("dpj_00000000_0");
  request.set_signing_request(
      KeyPair::Generate().value().MakeSigningRequest().value());
  v1::Enrollment answer;
  grpc::ClientContext context;
  SetDeadline(&context);

  const grpc::Status status = v1::EnrollmentService::NewStub(Connect())->Enroll(
      &context, request, &answer);

  EXPECT_EQ(status.error_code(), Code::UNAUTHENTICATED);
  EXPECT_THAT(Audit(), HasSubstr("EnrollmentService.Enroll"));
}

TEST_F(SecuredServerTest, NothingBelowTls13IsSpoken) {
  const OpensslPtr<SSL_CTX> context(SSL_CTX_new(TLS_client_method()));
  const auto shake_hands = [&](int version) {
    SSL_CTX_set_min_proto_version(context.get(), version);
    SSL_CTX_set_max_proto_version(context.get(), version);
    const OpensslPtr<SSL> session(SSL_new(context.get()));
    BIO* const wire = BIO_new_connect(server_->address().c_str());
    SSL_set_bio(session.get(), wire, wire);
    return SSL_connect(session.get());
  };

  EXPECT_EQ(shake_hands(TLS1_3_VERSION), 1);
  EXPECT_NE(shake_hands(TLS1_2_VERSION), 1);
}

TEST_F(SecuredServerTest, TheAuthorityIsKnownByItsHash) {
  const auto deadline = Deadline::After(std::chrono::seconds(20));

  const auto fetched = FetchPinnedAuthority(
      server_->address(), security_->authority_hash(), Clock::Real(), deadline);
  const auto refused =
      FetchPinnedAuthority(server_->address(), "sha256:" + std::string(64, '0'),
                           Clock::Real(), deadline);

  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ(*fetched, authority_);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace deltapipe
