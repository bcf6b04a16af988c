// Runs nccl_smoke, which says what it does, within its own hard limit.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <string>

#include "tests/support/process.h"

namespace deltapipe {
namespace {

TEST(NcclSmokeTest, ProcessesOnOneGpuGetTheSameBytesAsOverTcp) {
  const char* const sources = std::getenv("TEST_SRCDIR");
  const std::string program = std::string(sources == nullptr ? ".." : sources) +
                              "/deltapipe/tests/gpu/nccl_smoke";
  ProcessOptions options;
  options.folder = ::testing::TempDir();
  const auto run = Process::Start({program}, options);
  ASSERT_NE(run, nullptr);

  const std::optional<int> exit_code =
      run->WaitForExit(std::chrono::seconds(90));

  if (exit_code == 77) GTEST_SKIP() << run->output();
  EXPECT_EQ(exit_code, 0) << run->all();
}

}  // namespace
}  // namespace deltapipe
