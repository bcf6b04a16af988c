#include "coordinator/cli/doctor_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "base/file.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

std::string Folder() {
  const char* folder = std::getenv("TEST_TMPDIR");
  return folder != nullptr ? folder : "/tmp";
}

TEST(DoctorChecksTest, SilentCoordinatorMattersIfOneWasNamed) {
  JobClient client("127.0.0.1:1");

  const auto needed = CheckCoordinator(&client, "127.0.0.1:1", true);
  const auto not_needed = CheckCoordinator(&client, "127.0.0.1:1", false);

  ASSERT_EQ(needed.size(), 1u);
  EXPECT_EQ(needed[0].health, Health::kFailure);
  EXPECT_THAT(needed[0].detail, HasSubstr("cannot reach a coordinator"));
  EXPECT_EQ(not_needed[0].health, Health::kWarning);
  EXPECT_THAT(not_needed[0].remedy, HasSubstr("run does not"));
}

TEST(DoctorChecksTest, WorkerProgramMustRun) {
  setenv("DELTAPIPE_WORKER", "/bin/false", 1);
  const CheckResult fails = CheckWorkerProgram();
  setenv("DELTAPIPE_WORKER", "/bin/echo", 1);
  const CheckResult differs = CheckWorkerProgram();
  setenv("DELTAPIPE_WORKER", "/nowhere/worker", 1);
  const CheckResult missing = CheckWorkerProgram();
  unsetenv("DELTAPIPE_WORKER");

  EXPECT_EQ(fails.health, Health::kFailure);
  EXPECT_THAT(fails.detail, HasSubstr("exit code 1"));
  EXPECT_EQ(differs.health, Health::kFailure);
  EXPECT_THAT(differs.detail, HasSubstr("has version echo (GNU"));
  EXPECT_EQ(missing.health, Health::kFailure);
}

TEST(DoctorChecksTest, RunsFolderNeedsPermissionAndRoom) {
  EXPECT_NE(CheckRunsFolder(Folder() + "/not/yet").health, Health::kFailure);
  EXPECT_THAT(CheckRunsFolder(Folder() + "/not/yet").detail,
              HasSubstr("free in " + Folder()));
  EXPECT_EQ(CheckRunsFolder("/dev/null/x").health, Health::kFailure);
}

TEST(DoctorChecksTest, TlsFilesAreReadablePem) {
  const std::string key = Folder() + "/key.pem";
  const std::string text = Folder() + "/text.txt";
  ASSERT_TRUE(WriteFileAtomically(key, "-----BEGIN PRIVATE KEY-----\n").ok());
  ASSERT_TRUE(WriteFileAtomically(text, "hello\n").ok());
  ASSERT_EQ(chmod(key.c_str(), 0644), 0);

  auto results = CheckTlsFiles({key, text, Folder() + "/none.pem"});

  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].health, Health::kWarning);
  EXPECT_THAT(results[0].remedy, HasSubstr("chmod 600"));
  EXPECT_EQ(results[1].health, Health::kFailure);
  EXPECT_THAT(results[1].detail, HasSubstr("is not PEM"));
  EXPECT_EQ(results[2].health, Health::kFailure);
  ASSERT_EQ(chmod(key.c_str(), 0600), 0);
  EXPECT_EQ(CheckTlsFiles({key})[0].health, Health::kOk);
}

TEST(DoctorChecksTest, ThisMachineCanListenAndOpenFiles) {
  EXPECT_EQ(CheckPorts().health, Health::kOk);
  EXPECT_NE(CheckOpenFiles().health, Health::kFailure);
  EXPECT_NE(CheckDevices().health, Health::kFailure);
}

}  // namespace
}  // namespace deltapipe
