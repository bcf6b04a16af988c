#include "coordinator/security/authorizer.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/tls/testing_identities.h"
#include "proto/deltapipe/v1/admin.pb.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/enrollment.pb.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using Code = absl::StatusCode;

constexpr char kGet[] = "/deltapipe.v1.JobService/GetJob";
constexpr char kCancel[] = "/deltapipe.v1.JobService/CancelJob";
constexpr char kDrain[] = "/deltapipe.v1.JobService/DrainWorker";
constexpr char kSession[] = "/deltapipe.v1.ControlService/Session";
constexpr char kRenew[] = "/deltapipe.v1.EnrollmentService/Renew";

class AuthorizerTest : public ::testing::Test {
 protected:
  AuthorizerTest() {
    folder_ = ::testing::TempDir() + "/authorizer-XXXXXX";
    EXPECT_NE(mkdtemp(&folder_[0]), nullptr);
    tokens_ = TokenBook::Open(folder_, &clock_).value();
    authorizer_ = std::make_unique<Authorizer>(
        &authority_.authority().certificate(), "c1", tokens_.get(), &clock_);
  }
  Credentials Token(TokenScope scope) {
    NewToken wanted;
    wanted.name = "alice";
    wanted.scope = scope;
    Credentials credentials;
    credentials.token = tokens_->Create(wanted).value().secret;
    return credentials;
  }
  static Credentials Shown(const std::string& certificate_pem) {
    Credentials credentials;
    credentials.certificate_pem = certificate_pem;
    return credentials;
  }
  Code Ask(const std::string& path, const Credentials& credentials) {
    return authorizer_->Authorize(path, credentials).status().code();
  }

  FakeClock clock_;
  TestAuthority authority_{&clock_};
  std::string folder_;
  std::unique_ptr<TokenBook> tokens_;
  std::unique_ptr<Authorizer> authorizer_;
};

TEST_F(AuthorizerTest, EveryRpcHasARule) {
  int count = 0;
  for (const google::protobuf::FileDescriptor* file :
       {v1::Job::descriptor()->file(), v1::GetJobRequest::descriptor()->file(),
        v1::Tuning::descriptor()->file(), v1::Hello::descriptor()->file(),
        v1::EnrollRequest::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor* service = file->service(i);
      for (int j = 0; j < service->method_count(); ++j) {
        const std::string path = absl::StrCat("/", service->full_name(), "/",
                                              service->method(j)->name());
        EXPECT_NE(FindRule(path), nullptr) << path;
        ++count;
      }
    }
  }
  EXPECT_GT(count, 15);
}

TEST_F(AuthorizerTest, EachScopeMayWhatThoseBelowItMay) {
  const Credentials viewer = Token(TokenScope::kViewer);
  const Credentials operators = Token(TokenScope::kOperator);
  const Credentials admin = Token(TokenScope::kAdmin);

  EXPECT_EQ(Ask(kGet, viewer), Code::kOk);
  EXPECT_EQ(Ask(kCancel, viewer), Code::kPermissionDenied);
  EXPECT_EQ(Ask(kDrain, viewer), Code::kPermissionDenied);
  EXPECT_EQ(Ask(kGet, operators), Code::kOk);
  EXPECT_EQ(Ask(kCancel, operators), Code::kOk);
  EXPECT_EQ(Ask(kDrain, operators), Code::kPermissionDenied);
  EXPECT_EQ(Ask(kDrain, admin), Code::kOk);
}

TEST_F(AuthorizerTest, ARefusalNamesWhoWhatAndTheScope) {
  const auto refused =
      authorizer_->Authorize(kCancel, Token(TokenScope::kViewer));

  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("alice"));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("JobService/CancelJob: it takes the scope operator"));
}

TEST_F(AuthorizerTest, NobodyIsToldToBringAToken) {
  const auto refused = authorizer_->Authorize(kGet, {});

  EXPECT_EQ(refused.status().code(), Code::kUnauthenticated);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("--token-file"));
}

TEST_F(AuthorizerTest, AWorkersCertificateIsForWorkersCallsAndNoOthers) {
  const Credentials worker = Shown(authority_.MakeIdentity("worker-1"));

  EXPECT_EQ(authorizer_->Authorize(kSession, worker)->worker, "worker-1");
  EXPECT_EQ(Ask(kRenew, worker), Code::kOk);
  EXPECT_EQ(Ask(kGet, worker), Code::kUnauthenticated);
}

TEST_F(AuthorizerTest, WorkersCallsAreForNobodyElse) {
  TestAuthority other(&clock_);

  EXPECT_EQ(Ask(kSession, {}), Code::kUnauthenticated);
  EXPECT_EQ(Ask(kSession, Token(TokenScope::kAdmin)), Code::kUnauthenticated);
  EXPECT_EQ(Ask(kSession, Shown(authority_.MakeIdentity(""))),
            Code::kPermissionDenied);
  EXPECT_EQ(Ask(kSession, Shown(other.MakeIdentity("worker-1"))),
            Code::kPermissionDenied);
  EXPECT_EQ(Ask(kSession, Shown("garbage")), Code::kInvalidArgument);
}

TEST_F(AuthorizerTest, AnExpiredCertificateIsRefused) {
  const Credentials worker = Shown(authority_.MakeIdentity("worker-1"));
  clock_.Advance(std::chrono::hours(2));

  EXPECT_EQ(Ask(kSession, worker), Code::kUnauthenticated);
}

TEST_F(AuthorizerTest, MethodsWithoutARuleAreRefusedToAll) {
  EXPECT_EQ(
      Ask("/deltapipe.v1.JobService/DropEverything", Token(TokenScope::kAdmin)),
      Code::kUnimplemented);
}

TEST_F(AuthorizerTest, HealthAndJoiningNeedNothing) {
  EXPECT_EQ(Ask("/grpc.health.v1.Health/Check", {}), Code::kOk);
  EXPECT_EQ(Ask("/deltapipe.v1.EnrollmentService/Enroll", {}), Code::kOk);
}

}  // namespace
}  // namespace deltapipe
