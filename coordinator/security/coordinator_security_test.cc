#include "coordinator/security/coordinator_security.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/tls/private_file.h"

namespace deltapipe {
namespace {

using std::chrono::hours;
using ::testing::HasSubstr;

class CoordinatorSecurityTest : public ::testing::Test {
 protected:
  CoordinatorSecurityTest() {
    options_.folder = ::testing::TempDir() + "/security-XXXXXX";
    EXPECT_NE(mkdtemp(&options_.folder[0]), nullptr);
    options_.clock = &clock_;
  }
  std::unique_ptr<CoordinatorSecurity> Open() {
    auto security = CoordinatorSecurity::Open(options_);
    EXPECT_TRUE(security.ok()) << security.status();
    return *std::move(security);
  }
  std::string JoinToken(CoordinatorSecurity* security, int uses) {
    NewToken wanted;
    wanted.name = "test";
    wanted.scope = TokenScope::kJoin;
    wanted.uses = uses;
    return security->tokens()->Create(wanted).value().secret;
  }
  static std::string Request() {
    return KeyPair::Generate().value().MakeSigningRequest().value();
  }
  std::string File(const std::string& name) const {
    return options_.folder + "/" + name;
  }

  FakeClock clock_;
  SecurityOptions options_;
};

TEST_F(CoordinatorSecurityTest, SecretsAreForTheirOwnerAlone) {
  Open();

  for (const char* name : {"authority.key", "coordinator.pem", "tokens.json",
                           "admin.token", "audit.ndjson"}) {
    struct stat status = {};
    ASSERT_EQ(stat(File(name).c_str(), &status), 0) << name;
    EXPECT_EQ(status.st_mode & 0777, 0600u) << name;
  }
}

TEST_F(CoordinatorSecurityTest, TheAuthorityIsTheSameAfterARestart) {
  const std::string hash = Open()->authority_hash();

  EXPECT_EQ(Open()->authority_hash(), hash);
}

TEST_F(CoordinatorSecurityTest, TheFirstAdminsTokenIsAnAdmins) {
  auto security = Open();
  const std::string token =
      std::string(ReadPrivateFile(security->admin_token_path()).value());

  const auto record = security->tokens()->Check(token.substr(0, 77));

  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->scope, TokenScope::kAdmin);
}

TEST_F(CoordinatorSecurityTest, AnAuthoritysKeyThatOthersCanReadIsNotUsed) {
  Open();
  ASSERT_EQ(chmod(File("authority.key").c_str(), 0644), 0);

  EXPECT_EQ(CoordinatorSecurity::Open(options_).status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(CoordinatorSecurityTest, EveryWorkerHasAnotherNameWhateverItWants) {
  auto security = Open();
  const std::string token = JoinToken(security.get(), 5);
  std::vector<std::string> names;

  for (const char* wanted : {"", "worker-7", "worker-7", "../coordinator"}) {
    const auto issued = security->Enroll(token, Request(), wanted);
    ASSERT_TRUE(issued.ok()) << issued.status();
    names.push_back(issued->identity.worker);
  }

  EXPECT_THAT(names, ::testing::ElementsAre("worker-1", "worker-7", "worker-8",
                                            "worker-9"));
}

TEST_F(CoordinatorSecurityTest, AWorkerThatHeardNoAnswerKeepsItsName) {
  auto security = Open();
  const std::string token = JoinToken(security.get(), 1);
  const std::string request = Request();

  const auto first = security->Enroll(token, request, "");
  const auto again = security->Enroll(token, request, "");

  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(first->identity, again->identity);
}

TEST_F(CoordinatorSecurityTest, ABadRequestCostsNoUseOfTheToken) {
  auto security = Open();
  const std::string token = JoinToken(security.get(), 1);

  EXPECT_EQ(security->Enroll(token, "nonsense", "").status().code(),
            absl::StatusCode::kInvalidArgument);

  EXPECT_TRUE(security->Enroll(token, Request(), "").ok());
}

TEST_F(CoordinatorSecurityTest, IssuedCertificatesAreTheWorkersUntilTheyEnd) {
  auto security = Open();
  const auto issued =
      security->Enroll(JoinToken(security.get(), 1), Request(), "").value();

  const auto now = security->authorizer().WorkerOf(issued.certificate_pem);
  clock_.Advance(hours(25));
  const auto later = security->authorizer().WorkerOf(issued.certificate_pem);

  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_EQ(*now, issued.identity);
  EXPECT_EQ(later.status().code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(CoordinatorSecurityTest, TheOwnCertificateIsRenewedAfterTwoThirds) {
  auto security = Open();
  const std::string first = ReadFile(security->own_pem_path()).value();

  clock_.Advance(hours(15));
  ASSERT_TRUE(security->RenewOwn().ok());
  const std::string early = ReadFile(security->own_pem_path()).value();
  clock_.Advance(hours(2));
  ASSERT_TRUE(security->RenewOwn().ok());
  const std::string renewed = ReadFile(security->own_pem_path()).value();

  EXPECT_EQ(first, early);
  EXPECT_NE(first, renewed);
}

TEST_F(CoordinatorSecurityTest, AFloodOfRefusalsIsCutAndCounted) {
  auto security = Open();
  AuditEntry refusal;
  refusal.who = "nobody";
  refusal.what = "JobService.CancelJob";
  refusal.result = "UNAUTHENTICATED";
  refusal.is_refusal = true;

  for (int i = 0; i < AuditLog::kRefusalsPerMinute + 5; ++i) {
    security->audit()->Add(refusal);
  }
  refusal.is_refusal = false;
  refusal.result = "OK";
  refusal.reason = "a \"quoted\"\nreason";
  security->audit()->Add(refusal);

  const std::string text = ReadFile(File("audit.ndjson")).value();
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  ASSERT_EQ(lines.size(), AuditLog::kRefusalsPerMinute + 2u);
  EXPECT_THAT(lines[AuditLog::kRefusalsPerMinute],
              HasSubstr("\"refusals_left_out\":5"));
  EXPECT_THAT(lines[AuditLog::kRefusalsPerMinute],
              HasSubstr("a \\\"quoted\\\"\\nreason"));
}

}  // namespace
}  // namespace deltapipe
