// What `deltapipe coordinator --json` tells the program that started it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;

class CoordinatorTest : public testing::Test {
 protected:
  /// Starts one with these flags, ends it by SIGTERM once it listens, and
  /// returns what it printed. `while_it_runs` is called in between, with the
  /// address.
  template <typename Action>
  nlohmann::json Announcement(const std::vector<std::string>& flags,
                              const Action& while_it_runs) {
    std::vector<std::string> arguments = {"coordinator", "--listen",
                                          "127.0.0.1:0", "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    auto coordinator = bench_.Start(arguments);
    EXPECT_TRUE(coordinator->WaitForOutput(
        [](const std::string& text) {
          return CountEvents(text, "listening") == 1;
        },
        seconds(20)))
        << coordinator->all();
    Outcome outcome;
    outcome.output = coordinator->output();
    const std::vector<nlohmann::json> objects = outcome.Objects();
    EXPECT_THAT(objects, SizeIs(1)) << coordinator->all();
    nlohmann::json announcement =
        objects.empty() ? nlohmann::json::object() : objects.front();
    while_it_runs(announcement.value("address", ""));
    coordinator->Signal(SIGTERM);
    EXPECT_EQ(coordinator->WaitForExit(seconds(20)), 0) << coordinator->all();
    return announcement;
  }

  Workbench bench_;
};

TEST_F(CoordinatorTest, TellsWhereItListensAndKeepsJobs) {
  Outcome listed;

  const nlohmann::json told = Announcement(
      {"--metrics-listen", "127.0.0.1:0"}, [&](const std::string& address) {
        listed = bench_.Run({"ls", "--json", "--coordinator", address});
      });

  EXPECT_EQ(listed.exit_code, 0) << listed.text;
  EXPECT_EQ(told.value("schema", ""), "deltapipe.cli.Listening");
  EXPECT_THAT(told.value("address", ""), StartsWith("127.0.0.1:"));
  EXPECT_THAT(told.value("metrics_address", ""), StartsWith("127.0.0.1:"));
  EXPECT_THAT(told.value("store", ""), HasSubstr("runs/coordinator.db"));
  EXPECT_TRUE(bench_.Has("runs/coordinator.db"));
  EXPECT_FALSE(told.contains("join_command")) << told;
}

TEST_F(CoordinatorTest, WithTlsItTellsHowToJoinAndWhatUsersNeed) {
  Outcome listed;

  const nlohmann::json told =
      Announcement({"--tls"}, [&](const std::string& address) {
        listed = bench_.Run({"ls", "--coordinator", address, "--ca-file",
                             "runs/coordinator.security/authority.pem",
                             "--token-file",
                             "runs/coordinator.security/admin.token"});
      });

  EXPECT_EQ(listed.exit_code, 0) << listed.text;
  EXPECT_THAT(told.value("join_command", ""),
              HasSubstr("deltapipe-worker --coordinator " +
                        told.value("address", "?") + " --join-token "));
  EXPECT_THAT(told.value("ca_file", ""),
              HasSubstr("coordinator.security/authority.pem"));
  EXPECT_THAT(told.value("admin_token_file", ""),
              HasSubstr("coordinator.security/admin.token"));
}

}  // namespace
}  // namespace deltapipe
