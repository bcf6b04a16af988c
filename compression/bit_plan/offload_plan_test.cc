#include "compression/bit_plan/offload_plan.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/bit_plan.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

constexpr int kLevels[] = {2, 4, 8, kExactBits};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Tensors in the order of saves, of so many elements and costs at one bit.
struct Tensors {
  void Add(int64_t num_elements, double cost, double derivative = -1) {
    SavedMeasurement measurement;
    measurement.tensor.name = absl::StrCat(measurements.size());
    measurement.tensor.op = "addmm";
    measurement.tensor.num_elements = num_elements;
    measurements.push_back(measurement);
    question.coefficients.push_back(cost);
    question.derivative_coefficients.push_back(derivative);
    question.measurements = measurements;
    question.levels = kLevels;
  }
  int64_t BytesAt(int bits) const {
    int64_t bytes = 0;
    for (const SavedMeasurement& measurement : measurements) {
      bytes += PackedBytes(measurement, bits);
    }
    return bytes;
  }

  std::vector<SavedMeasurement> measurements;
  TensorBitsQuestion question;
};

using Plan = std::map<std::string, PlannedTensor>;

struct Sums {
  int64_t device = 0;
  int64_t host = 0;
  double cost = 0;
};

Sums SumsOf(const Tensors& tensors, const Plan& plan) {
  Sums sums;
  for (size_t i = 0; i < tensors.measurements.size(); ++i) {
    const PlannedTensor& planned = plan.at(absl::StrCat(i));
    (planned.is_offloaded ? sums.host : sums.device) +=
        LevelBytes(tensors.question, i, planned.value);
    sums.cost += LevelCost(tensors.question, i, planned.value);
    // Kept as they are, or by their derivative: on the device.
    if (planned.is_offloaded) {
      EXPECT_GT(planned.value, 0);
      EXPECT_LT(planned.value, kExactBits);
    }
  }
  return sums;
}

std::vector<bool> OnHost(const Tensors& tensors, const Plan& plan) {
  std::vector<bool> is_there;
  for (size_t i = 0; i < tensors.measurements.size(); ++i) {
    is_there.push_back(plan.at(absl::StrCat(i)).is_offloaded);
  }
  return is_there;
}

TEST(OffloadPlanTest, NothingGoesWhereTheDeviceHoldsAllAsItIs) {
  Tensors tensors;
  for (int i = 0; i < 4; ++i) tensors.Add(10000, 1);

  const auto plan =
      PlanWithOffload(tensors.question, tensors.BytesAt(kExactBits), 1 << 20);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(OnHost(tensors, *plan), ElementsAre(false, false, false, false));
  EXPECT_EQ(SumsOf(tensors, *plan).cost, 0);
}

TEST(OffloadPlanTest, WhatIsSavedFirstGoesAndAllHaveMoreBits) {
  Tensors tensors;
  for (int i = 0; i < 4; ++i) tensors.Add(10240, 1);
  const int64_t half = tensors.BytesAt(8) / 2;
  const auto without = PlanBudgetBits(tensors.question, half);
  ASSERT_TRUE(without.ok()) << without.status();

  const auto plan = PlanWithOffload(tensors.question, half, half);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(OnHost(tensors, *plan), ElementsAre(true, true, false, false));
  EXPECT_LT(SumsOf(tensors, *plan).cost, SumsOf(tensors, *without).cost / 9);
}

TEST(OffloadPlanTest, NoMoreGoesThanTheDeviceLacks) {
  Tensors tensors;
  for (int i = 0; i < 4; ++i) tensors.Add(10240, 1);
  const int64_t each = tensors.BytesAt(8) / 4;

  // Room for one of them as it is, too, had it to be anywhere.
  const auto plan = PlanWithOffload(tensors.question, 3 * each, each);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(OnHost(tensors, *plan), ElementsAre(true, false, false, false));
}

// All tensors as they are fit device and host together, but only what is packed
// may go to the host.
TEST(OffloadPlanTest, AHostOfAnySizeDoesNotKeepTensorsAsTheyAre) {
  Tensors tensors;
  for (int i = 0; i < 10; ++i) tensors.Add(10240, 1);
  const int64_t raw = tensors.BytesAt(kExactBits);

  const auto plan = PlanWithOffload(tensors.question, raw / 5, 10 * raw);

  ASSERT_TRUE(plan.ok()) << plan.status();
  const Sums sums = SumsOf(tensors, *plan);
  EXPECT_LE(sums.device, raw / 5);
  // 8 bits for all but what the device holds as it is.
  EXPECT_LE(sums.cost, 10 * QuantisationCost(1, 8));
}

TEST(OffloadPlanTest, DerivativesThatAreInTheWayAreGivenUp) {
  Tensors tensors;
  for (int i = 0; i < 4; ++i) tensors.Add(10240, 1, 0.01);
  const int64_t lowest = tensors.BytesAt(2);

  EXPECT_EQ(LeastDeviceBytes(tensors.question, lowest), 0);
  const auto plan = PlanWithOffload(tensors.question, 0, lowest);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(SumsOf(tensors, *plan).device, 0);
}

TEST(OffloadPlanTest, WithoutHostMemoryItIsThePlanOfTheBudget) {
  Tensors tensors;
  for (int i = 0; i < 4; ++i) tensors.Add(10240, i);
  const int64_t budget = tensors.BytesAt(4);

  const auto plan = PlanWithOffload(tensors.question, budget, 0);
  const auto expected = PlanBudgetBits(tensors.question, budget);

  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const auto& [name, tensor] : *expected) {
    EXPECT_EQ(plan->at(name).value, tensor.value);
  }
  EXPECT_EQ(LeastDeviceBytes(tensors.question, 0), tensors.BytesAt(2));
}

/// The least cost of all plans, infinite if there is none.
double LeastCost(const Tensors& tensors, size_t i, int64_t device,
                 int64_t host) {
  if (device < 0 || host < 0) return kInfinity;
  if (i == tensors.measurements.size()) return 0;
  double least = kInfinity;
  const auto take = [&](double value, int64_t on_device, int64_t on_host) {
    const double rest =
        LeastCost(tensors, i + 1, device - on_device, host - on_host);
    least = std::min(least, rest + LevelCost(tensors.question, i, value));
  };
  for (const int bits : kLevels) {
    const int64_t bytes = LevelBytes(tensors.question, i, bits);
    take(bits, bytes, 0);
    if (bits == kExactBits) continue;
    take(bits, 0, bytes);
    if (tensors.question.derivative_coefficients[i] >= 0) take(-bits, bytes, 0);
  }
  return least;
}

TEST(OffloadPlanTest, NeitherBudgetIsExceededAndCostIsNearTheLeast) {
  int num_planned = 0;
  int num_offloaded = 0;
  int num_near = 0;
  double log_ratio = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    std::mt19937 random(seed);
    const auto draw = [&](int64_t least, int64_t most) {
      return std::uniform_int_distribution<int64_t>(least, most)(random);
    };
    Tensors tensors;
    const int64_t count = draw(1, 5);
    for (int64_t i = 0; i < count; ++i) {
      const double cost = std::exp(static_cast<double>(draw(-30, 30)) / 10);
      tensors.Add(draw(1000, 30000), cost, draw(0, 2) == 0 ? cost / 2 : -1);
    }
    const int64_t raw = tensors.BytesAt(kExactBits);
    const int64_t device = draw(0, raw / 2);
    const int64_t host = draw(0, raw / 2);
    SCOPED_TRACE(
        absl::StrCat("seed ", seed, ", ", device, " bytes, ", host, " host"));

    const auto plan = PlanWithOffload(tensors.question, device, host);

    EXPECT_EQ(plan.ok(), device >= LeastDeviceBytes(tensors.question, host));
    const double least = LeastCost(tensors, 0, device, host);
    if (!plan.ok()) continue;
    ++num_planned;
    const Sums sums = SumsOf(tensors, *plan);
    EXPECT_LE(sums.device, device);
    EXPECT_LE(sums.host, host);
    num_offloaded += sums.host > 0 ? 1 : 0;
    ASSERT_LT(least, kInfinity);
    EXPECT_GE(sums.cost, least * 0.9999);
    // No worse than without the host.
    const double alone = LeastCost(tensors, 0, device, 0);
    EXPECT_LE(sums.cost, alone * 1.0001);
    num_near += sums.cost <= least * 1.5 ? 1 : 0;
    if (least > 0) log_ratio += std::log(sums.cost / least);
  }
  RecordProperty("planned", num_planned);
  RecordProperty("offloaded", num_offloaded);
  RecordProperty("near", num_near);
  RecordProperty("ratio", absl::StrCat(std::exp(log_ratio / num_planned)));
  EXPECT_GT(num_planned, 120);
  EXPECT_GT(num_offloaded, 80);
  // Which tensors go follows the order of saves.
  EXPECT_GT(num_near, num_planned * 9 / 10);
}

}  // namespace
}  // namespace deltapipe
