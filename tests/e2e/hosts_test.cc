// A job over several hosts: each worker in a network namespace of its own, on
// real (virtual) links. Skipped, with the reason, where that is not allowed.
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
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
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

constexpr char kStar[] = "dptest";

std::string NetnsScript() {
  char folder[4096];
  if (getcwd(folder, sizeof folder) == nullptr) return "";
  return std::string(folder) + "/scripts/netns";
}

/// Two hosts, removed at the end.
class HostsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "network namespaces need root";
    setenv("DELTAPIPE_NETNS", kStar, 1);
    auto up = bench_.StartProgram({NetnsScript(), "up", "2", "200mbit"});
    const Outcome outcome = bench_.Finish(up.get(), seconds(30));
    if (outcome.exit_code != 0) {
      GTEST_SKIP() << "no network namespaces here: " << outcome.errors;
    }
    is_up_ = true;
  }

  void TearDown() override {
    if (!is_up_) return;
    auto down = bench_.StartProgram({NetnsScript(), "down"});
    EXPECT_EQ(bench_.Finish(down.get(), seconds(30)).exit_code, 0);
  }

  /// Starts a program of ours on a host.
  std::unique_ptr<Process> StartOn(int host, const std::string& name,
                                   const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {
        NetnsScript(), "exec", std::to_string(host), bench_.program(name)};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return bench_.StartProgram(words);
  }

  Outcome RunOn(int host, const std::vector<std::string>& arguments) {
    auto process = StartOn(host, "deltapipe", arguments);
    return bench_.Finish(process.get(), seconds(60));
  }

  Workbench bench_;
  bool is_up_ = false;
};

TEST_F(HostsTest, FourWorkersOnTwoHostsTrainTogether) {
  constexpr char kAddress[] = "10.77.0.1:47100";
  auto coordinator = StartOn(0, "deltapipe",
                             {"coordinator", "--listen", kAddress,  //
                              "--insecure"});
  ASSERT_TRUE(coordinator->WaitForOutput(
      [](const std::string& text) {
        return text.find("listening on") != std::string::npos;
      },
      seconds(20)))
      << coordinator->all();
  std::vector<std::unique_ptr<Process>> workers;
  for (int host : {0, 1, 0, 1}) {
    workers.push_back(StartOn(host, "deltapipe-worker",
                              {"--coordinator", kAddress, "--listen",
                               "10.77.0." + std::to_string(host + 1) + ":0",
                               "--insecure", "--data-root", "text.txt"}));
  }

  const Outcome submit =
      RunOn(1, {"submit", "job.yaml", "-d", "--json", "--coordinator", kAddress,
                "--set", "compression.activations=delta(int(4),first=int(8))"});
  ASSERT_EQ(submit.exit_code, 0) << submit.text;
  ASSERT_THAT(submit.Objects(), Not(testing::IsEmpty())) << submit.text;
  const std::string id = submit.Objects().back().value("id", "");
  const Outcome logs = RunOn(1, {"logs", "-f", id, "--coordinator", kAddress});
  EXPECT_EQ(logs.exit_code, 0) << logs.text;

  const Outcome describe =
      RunOn(1, {"describe", id, "--coordinator", kAddress});
  EXPECT_THAT(describe.output, HasSubstr("SUCCEEDED")) << logs.text;
  EXPECT_THAT(describe.output, HasSubstr("10.77.0.1"));
  EXPECT_THAT(describe.output, HasSubstr("10.77.0.2"));
}

}  // namespace
}  // namespace deltapipe
