// A coordinator with TLS, workers that join with the line it prints, users with
// tokens, and all that are refused.
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/process.h"
#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class SecurityTest : public testing::Test {
 protected:
  /// Starts a coordinator on loopback with TLS and reads the line it prints.
  std::unique_ptr<Process> StartCoordinator(
      const std::vector<std::string>& flags = {}) {
    std::vector<std::string> arguments = {"coordinator", "--listen",
                                          "127.0.0.1:0", "--tls"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    auto coordinator = bench_.Start(arguments);
    std::smatch match;
    const std::regex line(
        "deltapipe-worker --coordinator (\\S+) --join-token (\\S+) --ca-hash "
        "(\\S+)\n");
    coordinator->WaitForOutput(
        [&](const std::string& text) {
          if (!std::regex_search(text, match, line)) return false;
          address_ = match[1];
          join_token_ = match[2];
          ca_hash_ = match[3];
          return true;
        },
        seconds(20));
    EXPECT_THAT(join_token_, Not(IsEmpty())) << coordinator->all();
    return coordinator;
  }

  std::unique_ptr<Process> StartWorker(
      const std::vector<std::string>& flags = {}) {
    std::vector<std::string> words = {bench_.program("deltapipe-worker"),
                                      "--coordinator",
                                      address_,
                                      "--join-token",
                                      join_token_,
                                      "--ca-hash",
                                      ca_hash_,
                                      "--data-root",
                                      "text.txt"};
    words.insert(words.end(), flags.begin(), flags.end());
    return bench_.StartProgram(words);
  }

  /// Asks as somebody with this token; "" asks without one.
  Outcome Ask(std::vector<std::string> arguments,
              const std::string& token_file) {
    arguments.insert(arguments.end(), {"--coordinator", address_, "--ca-file",
                                       "runs/coordinator.security/"
                                       "authority.pem"});
    if (!token_file.empty()) {
      arguments.insert(arguments.end(), {"--token-file", token_file});
    }
    return bench_.Run(arguments);
  }

  /// Makes a token and its file.
  std::string MakeToken(const std::string& scope) {
    const Outcome made =
        bench_.Run({"token", "create", "--name", scope, "--scope", scope});
    EXPECT_EQ(made.exit_code, 0) << made.text;
    bench_.Write(scope + ".token", made.output);
    EXPECT_EQ(chmod((bench_.folder() + "/" + scope + ".token").c_str(), 0600),
              0);
    return scope + ".token";
  }

  std::string Submit(const std::string& token_file,
                     const std::vector<std::string>& settings = {}) {
    std::vector<std::string> arguments = {
        "submit", "job.yaml", "-d", "--json", "--set", "parallel.replicas=1"};
    for (const std::string& setting : settings) {
      arguments.insert(arguments.end(), {"--set", setting});
    }
    const Outcome outcome = Ask(arguments, token_file);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    const std::vector<nlohmann::json> objects = outcome.Objects();
    return objects.empty() ? "" : objects.back().value("id", "");
  }

  std::string AuditLog() {
    return bench_.Read("runs/coordinator.security/audit.ndjson");
  }

  Workbench bench_;
  std::string address_, join_token_, ca_hash_;
  const std::string admin_ = "runs/coordinator.security/admin.token";
};

TEST_F(SecurityTest, AJobTrainsOverTlsOnWorkersThatJoinedWithThePrintedLine) {
  auto coordinator = StartCoordinator();
  auto first = StartWorker();
  auto second = StartWorker();
  const std::string operators = MakeToken("operator");

  const std::string id = Submit(operators);
  ASSERT_THAT(id, Not(IsEmpty()));
  const Outcome logs = Ask({"logs", "-f", id}, operators);
  const Outcome described = Ask({"describe", id, "--json"}, operators);

  EXPECT_THAT(described.output, HasSubstr("SUCCEEDED"))
      << described.text << logs.text << first->all() << second->all();
  EXPECT_THAT(AuditLog(), HasSubstr("\"what\":\"JobService.SubmitJob\""));
  EXPECT_THAT(AuditLog(), HasSubstr("\"who\":\"operator (operator, "));
}

TEST_F(SecurityTest, AViewerMayLookAndNotCancel) {
  auto coordinator = StartCoordinator();
  const std::string id = Submit(admin_);
  const std::string viewer = MakeToken("viewer");

  const Outcome look = Ask({"describe", id}, viewer);
  const Outcome cancel = Ask({"cancel", id}, viewer);

  EXPECT_EQ(look.exit_code, 0) << look.text;
  EXPECT_EQ(cancel.exit_code, 6) << cancel.text;
  EXPECT_THAT(cancel.errors, HasSubstr("it takes the scope operator"));
  EXPECT_THAT(AuditLog(), HasSubstr("PERMISSION_DENIED"));
}

TEST_F(SecurityTest, WithoutATokenOrWithARevokedOneNothingIsAnswered) {
  auto coordinator = StartCoordinator();
  const std::string viewer = MakeToken("viewer");
  const Outcome list = bench_.Run({"token", "ls", "--json"});
  std::string token_id;
  for (const nlohmann::json& token : list.Objects()) {
    if (token.value("name", "") == "viewer") token_id = token.value("id", "");
  }

  const Outcome before = Ask({"ls"}, viewer);
  const Outcome revoke = bench_.Run({"token", "revoke", token_id});
  const Outcome after = Ask({"ls"}, viewer);
  const Outcome without = Ask({"ls"}, "");

  EXPECT_EQ(before.exit_code, 0) << before.text;
  EXPECT_EQ(revoke.exit_code, 0) << revoke.text;
  EXPECT_EQ(after.exit_code, 6) << after.text;
  EXPECT_THAT(after.errors, HasSubstr("revoked"));
  EXPECT_EQ(without.exit_code, 6) << without.text;
  EXPECT_THAT(without.errors, HasSubstr("--token-file"));
}

TEST_F(SecurityTest, AReplayedJoinTokenIsRefusedAndLogged) {
  auto coordinator = StartCoordinator({"--join-uses", "1"});
  auto first = StartWorker();
  ASSERT_TRUE(first->WaitForOutput(
      [](const std::string& text) {
        return text.find("registered as") != std::string::npos;
      },
      seconds(60)))
      << first->all();

  auto second = StartWorker();
  const Outcome refused = bench_.Finish(second.get(), seconds(60));

  EXPECT_EQ(refused.exit_code, 6) << refused.text;
  EXPECT_THAT(refused.errors, HasSubstr("used up"));
  EXPECT_THAT(AuditLog(), HasSubstr("used up"));
  EXPECT_THAT(AuditLog(), Not(HasSubstr(join_token_.substr(13))));
}

TEST_F(SecurityTest, AnotherCoordinatorsHashIsRefusedBeforeTheTokenIsSent) {
  auto coordinator = StartCoordinator();
  ca_hash_.back() = ca_hash_.back() == '0' ? '1' : '0';

  auto worker = StartWorker();
  const Outcome refused = bench_.Finish(worker.get(), seconds(60));

  EXPECT_EQ(refused.exit_code, 6) << refused.text;
  EXPECT_THAT(refused.errors, HasSubstr("shows the authority sha256:"));
  EXPECT_THAT(AuditLog(), Not(HasSubstr("Enroll")));
}

TEST_F(SecurityTest, CertificatesAreRenewedWhileAJobRunsAndItLosesNoStep) {
  auto coordinator = StartCoordinator({"--certificate-lifetime", "6s"});
  auto first = StartWorker();
  auto second = StartWorker();
  const std::string id = Submit(admin_, {"train.steps=1000000"});
  const auto renewed_twice = [](const std::string& text) {
    const size_t once = text.find("renewed the certificate");
    return once != std::string::npos &&
           text.find("renewed the certificate", once + 1) != std::string::npos;
  };

  ASSERT_TRUE(first->WaitForOutput(renewed_twice, seconds(60))) << first->all();
  ASSERT_TRUE(second->WaitForOutput(renewed_twice, seconds(60)))
      << second->all();

  const Outcome described = Ask({"describe", id, "--json"}, admin_);
  EXPECT_THAT(described.output, HasSubstr("RUNNING")) << described.text;
  EXPECT_EQ(Ask({"cancel", id}, admin_).exit_code, 0);
  const Outcome logs = Ask({"logs", "-f", id}, admin_);
  EXPECT_THAT(Ask({"describe", id, "--json"}, admin_).output,
              HasSubstr("CANCELLED"));
}

TEST_F(SecurityTest, AnIdentityThatWasKeptNeedsNoToken) {
  auto coordinator = StartCoordinator({"--join-uses", "1"});
  const auto is_registered = [](const std::string& text) {
    return text.find("registered as worker-1") != std::string::npos;
  };
  auto worker = StartWorker({"--identity", "identity"});
  ASSERT_TRUE(worker->WaitForOutput(is_registered, seconds(60)))
      << worker->all();
  worker->Signal(SIGKILL);
  worker->WaitForExit(seconds(5));

  auto again =
      bench_.StartProgram({bench_.program("deltapipe-worker"), "--coordinator",
                           address_, "--identity", "identity"});

  EXPECT_TRUE(again->WaitForOutput(is_registered, seconds(60))) << again->all();
}

TEST_F(SecurityTest, PathsThatLeadOutOfTheRootsAreRefusedAndLogged) {
  namespace fs = std::filesystem;
  const fs::path folder = bench_.folder();
  fs::create_directories(folder / "runs");
  fs::create_directory(folder / "outside");
  fs::create_directory_symlink(folder / "outside", folder / "runs/link");
  bench_.Write("secret.txt", VariedText(100000));
  auto coordinator = StartCoordinator();
  auto first = StartWorker();
  auto second = StartWorker();
  const std::string operators = MakeToken("operator");
  struct Escape {
    std::vector<std::string> words;
    std::string refusal;
  };
  const Escape escapes[] = {
      {{"--set", "data.path=runs/../secret.txt"},
       "data.path 'runs/../secret.txt' leads out of what --data-root opens"},
      {{"--set", "data.path=/etc/passwd"},
       "data.path '/etc/passwd' leads out of what --data-root opens"},
      {{"--set", "checkpoint.folder=runs/../outside"},
       "checkpoint.folder 'runs/../outside' leads out of what --write-root"},
      {{"--set", "checkpoint.folder=runs/link/checkpoints"},
       "checkpoint.folder 'runs/link/checkpoints' leads out of what"},
      {{"--run-folder", "runs/../../outside"},
       "the run folder 'runs/../../outside' leads out of what --write-root"}};

  for (const Escape& escape : escapes) {
    std::vector<std::string> words = {"submit", "job.yaml",
                                      "--set",  "parallel.replicas=1",
                                      "--set",  "checkpoint.every=2"};
    words.insert(words.end(), escape.words.begin(), escape.words.end());
    const Outcome refused = Ask(words, operators);

    EXPECT_EQ(refused.exit_code, 1) << refused.text;
    EXPECT_THAT(refused.text, HasSubstr(escape.refusal));
    EXPECT_THAT(AuditLog(), HasSubstr(escape.refusal));
    EXPECT_THAT(first->all() + second->all(),
                HasSubstr("failed here: cannot start: " + escape.refusal));
  }
  EXPECT_THAT(AuditLog(),
              HasSubstr("\"what\":\"ControlService.AssignmentDone\""));
  EXPECT_TRUE(fs::is_empty(folder / "outside"));
  EXPECT_FALSE(fs::exists(folder / "../outside"));

  // The workers are none the worse for it.
  const Outcome good = Ask({"submit", "job.yaml", "--set",
                            "parallel.replicas=1", "--run-folder", "runs/good"},
                           operators);
  EXPECT_EQ(good.exit_code, 0) << good.text << first->all();
  EXPECT_TRUE(bench_.Has("runs/good/model.safetensors"));
}

TEST_F(SecurityTest, AWorkerThatJoinedReadsNothingUnlessItsOwnerSaysSo) {
  auto coordinator = StartCoordinator();
  const std::vector<std::string> words = {bench_.program("deltapipe-worker"),
                                          "--coordinator",
                                          address_,
                                          "--join-token",
                                          join_token_,
                                          "--ca-hash",
                                          ca_hash_};
  auto first = bench_.StartProgram(words);
  auto second = bench_.StartProgram(words);

  const Outcome refused =
      Ask({"submit", "job.yaml", "--set", "parallel.replicas=1"}, admin_);

  EXPECT_EQ(refused.exit_code, 1) << refused.text;
  EXPECT_THAT(refused.text,
              HasSubstr("data.path 'text.txt' is refused: no folder was opened "
                        "to jobs by --data-root: start this program with "
                        "--data-root DIR"));
}

TEST_F(SecurityTest, SecretsDoNotLieWhereJobsRead) {
  auto coordinator = StartCoordinator();

  auto worker = StartWorker({"--data-root", ".", "--identity", "identity"});
  const Outcome refused = bench_.Finish(worker.get(), seconds(60));

  EXPECT_EQ(refused.exit_code, 2) << refused.text;
  EXPECT_THAT(refused.errors,
              HasSubstr("--identity identity lies beneath a --data-root"));
}

TEST_F(SecurityTest, PlainTextIsNotAnswered) {
  auto coordinator = StartCoordinator();

  const Outcome list = bench_.Run({"ls", "--coordinator", address_});

  EXPECT_EQ(list.exit_code, 5) << list.text;
  EXPECT_THAT(list.errors, HasSubstr("--ca-file"));
}

TEST_F(SecurityTest, ATokenIsNotShownInPlainTextNorReadFromAnOpenFile) {
  auto coordinator = StartCoordinator();
  const std::string viewer = MakeToken("viewer");

  const Outcome plain =
      bench_.Run({"ls", "--coordinator", address_, "--token-file", viewer});
  chmod((bench_.folder() + "/" + viewer).c_str(), 0644);
  const Outcome open = Ask({"ls"}, viewer);

  EXPECT_EQ(plain.exit_code, 2) << plain.text;
  EXPECT_THAT(plain.errors, HasSubstr("over TLS only"));
  EXPECT_EQ(open.exit_code, 6) << open.text;
  EXPECT_THAT(open.errors, HasSubstr("mode 644"));
}

}  // namespace
}  // namespace deltapipe
