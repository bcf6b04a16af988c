#include "worker/engine/nccl_upgrade.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

TEST(NcclUpgradeTest, PlainTextBesideTlsTakesAWord) {
  NcclUpgradeOptions options;
  options.is_secured = true;

  const absl::Status status = NcclUpgrades(options)().status();

  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--nccl-plaintext"));
}

TEST(NcclUpgradeTest, WithThatWordItIsTheMachineThatDecides) {
  NcclUpgradeOptions options;
  options.is_secured = true;
  options.allows_plain_text = true;

  const absl::Status status = NcclUpgrades(options)().status();

  EXPECT_NE(status.code(), absl::StatusCode::kPermissionDenied);
}

TEST(NcclUpgradeTest, AMachineWithoutThatDeviceSaysSo) {
  NcclUpgradeOptions options;
  options.device = 1000;

  const absl::Status status = NcclUpgrades(options)().status();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
}

}  // namespace
}  // namespace deltapipe
