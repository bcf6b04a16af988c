// auto(budget,slowdown,offload).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/saved_policy.h"
#include "compression/bit_plan/tensor_bits.h"
#include "compression/bit_plan/testing_policies.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST(AutoPolicyTest, KeepsWithinItsBudget) {
  for (const double mib : {0.45, 0.6, 1.0, 2.0, 8.0}) {
    for (uint32_t seed = 1; seed <= 10; ++seed) {
      SCOPED_TRACE(absl::StrCat(mib, " MiB, seed ", seed));
      std::mt19937 random(seed);
      std::normal_distribution<double> normal;
      std::vector<SavedMeasurement> measurements;
      for (int i = 0; i < 20; ++i) {
        measurements.push_back(Measured(Tensor(absl::StrCat(i), {512, 128}),
                                        std::exp(3 * normal(random))));
      }
      measurements[3].tensor.keeps_zeros = true;
      measurements[3].nonzero_share = 0.5;
      const auto policy = Make(absl::StrCat("auto(", mib, ")"));

      ASSERT_TRUE(policy->Plan(1, measurements).ok());

      int64_t bytes = 0;
      for (const SavedMeasurement& measurement : measurements) {
        bytes += PackedBytes(measurement, BitsOf(*policy, measurement.tensor));
      }
      EXPECT_LE(bytes, mib * (1 << 20));
    }
  }
}

TEST(AutoPolicyTest, NamesTheSmallestBudgetAndKeepsTheFormerPlan) {
  std::vector<SavedMeasurement> measurements = {
      Measured(Tensor("a", {512, 128}), 1),
      Measured(Tensor("b", {512, 128}), 9)};
  const auto policy = Make("auto(0.04)");
  ASSERT_TRUE(policy->Plan(1, measurements).ok());
  const std::string before = CodecFor(*policy, measurements[0].tensor);
  measurements.push_back(Measured(Tensor("c", {512, 256}), 1));

  const absl::Status status = policy->Plan(2, measurements);

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  // 2 bits and 4 bytes for 256 values, of 262,144 in all: 69,632 bytes.
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("auto(0.07) is the smallest budget that works"));
  ASSERT_TRUE(Make("auto(0.07)")->Plan(2, measurements).ok());
  EXPECT_EQ(CodecFor(*policy, measurements[0].tensor), before);
}

TEST(AutoPolicyTest, SharesItsBudgetAmongMicrobatchesInFlight) {
  const std::vector<SavedMeasurement> measurements = {
      Measured(Tensor("a", {512, 128}), 1),
      Measured(Tensor("b", {512, 128}), 9)};
  const auto bits_of_both = [&](const SavedRoom& room) {
    const auto policy = Make("auto(0.2)");
    policy->SetRoom(room);
    EXPECT_TRUE(policy->Plan(1, measurements).ok());
    return BitsOf(*policy, measurements[0].tensor) +
           BitsOf(*policy, measurements[1].tensor);
  };

  EXPECT_GT(bits_of_both({1, 0, {}}), bits_of_both({2, 0, {}}));
  EXPECT_GT(bits_of_both({2, 0, {}}), bits_of_both({4, 0, {}}));
  EXPECT_GT(bits_of_both({1, 0, {}}), bits_of_both({1, 120000, {}}));
  const auto policy = Make("auto(0.2)");
  policy->SetRoom({8, 100000, {}});
  EXPECT_THAT(std::string(policy->Plan(1, measurements).message()),
              HasSubstr("each of 8 micro-batches in flight keeps 0.10 MiB as "
                        "they are (loss head, statistics) and 0.03 MiB in the "
                        "fewest bits; auto(1.03) is the smallest budget"));
}

TEST(AutoPolicyTest, ComputesAgainAsMuchAsItMayTake) {
  std::vector<SavedMeasurement> measurements;
  SavedRoom room;
  for (const char* layer : {"blocks.0", "blocks.1", "blocks.2"}) {
    for (int i = 0; i < 4; ++i) {
      measurements.push_back(
          Measured(Tensor(absl::StrCat(layer, "/", i), {512, 128}), 1));
      measurements.back().tensor.layer = layer;
    }
    room.layers.push_back({layer, 512 * 128 * 4, 0});
  }
  const auto policy = Make("auto(0.8,slowdown=0.12)");
  policy->SetRoom(room);
  EXPECT_THAT(policy->RecomputedLayers(), IsEmpty());

  ASSERT_TRUE(policy->Plan(1, measurements).ok());

  EXPECT_THAT(policy->RecomputedLayers(), ElementsAre("blocks.0"));
  SavedTensor input = Tensor("blocks.0/input/0", {512, 128}, "input");
  EXPECT_EQ(policy->Treat(input).codec, nullptr);
  const auto successor = Make(policy->text());
  ASSERT_TRUE(successor->Restore(policy->Save()).ok());
  EXPECT_THAT(successor->RecomputedLayers(), ElementsAre("blocks.0"));
  EXPECT_EQ(successor->Treat(input).codec, nullptr);
  EXPECT_THAT(Make("auto(0.8)")->RecomputedLayers(), IsEmpty());
}

TEST(AutoPolicyTest, HasRoomForTheLayerThatIsComputedAgain) {
  std::vector<SavedMeasurement> measurements;
  SavedRoom room;
  room.in_flight = 2;
  room.head_bytes = 20000;
  for (const char* layer : {"blocks.0", "blocks.1", "blocks.2"}) {
    for (int i = 0; i < 4; ++i) {
      measurements.push_back(
          Measured(Tensor(absl::StrCat(layer, "/", i), {512, 128}), 1));
      measurements.back().tensor.layer = layer;
    }
    room.layers.push_back({layer, 512 * 128 * 4, 0, 3 * 512 * 128 * 4});
  }
  // At the most: with all that is kept, and on top of it a layer that is
  // computed again when the head and later layers are gone.
  const auto bytes_with = [&](const std::string& text, size_t* recomputed) {
    const auto policy = Make(text);
    policy->SetRoom(room);
    EXPECT_TRUE(policy->Plan(1, measurements).ok()) << text;
    const std::vector<std::string> layers = policy->RecomputedLayers();
    *recomputed = layers.size();
    int64_t kept = 0;
    int64_t on_top = 0;
    for (size_t k = room.layers.size(); k-- > 0;) {
      const std::string& layer = room.layers[k].name;
      if (std::find(layers.begin(), layers.end(), layer) != layers.end()) {
        on_top = std::max<int64_t>(on_top,
                                   3 * 512 * 128 * 4 - room.head_bytes - kept);
        kept += 512 * 128 * 4;
        continue;
      }
      for (size_t i = 4 * k; i < 4 * k + 4; ++i) {
        kept += PackedBytes(measurements[i],
                            BitsOf(*policy, measurements[i].tensor));
      }
    }
    return 2 * kept + on_top;
  };
  size_t recomputed = 0;

  const auto bytes = bytes_with("auto(2.4,slowdown=0.12)", &recomputed);
  EXPECT_LE(bytes, 2.4 * (1 << 20));
  EXPECT_GE(bytes, 2.2 * (1 << 20));
  EXPECT_EQ(recomputed, 1u);

  // The lowest levels fit a budget that has no room for a whole layer beside.
  EXPECT_LE(bytes_with("auto(0.5,slowdown=0.12)", &recomputed),
            0.5 * (1 << 20));
  EXPECT_EQ(recomputed, 0u);
  const auto policy = Make("auto(0.39,slowdown=0.12)");
  policy->SetRoom(room);
  EXPECT_THAT(std::string(policy->Plan(1, measurements).message()),
              HasSubstr("auto(0.4,slowdown=0.12) is the smallest budget"));
  EXPECT_LE(bytes_with("auto(0.4,slowdown=0.12)", &recomputed),
            0.4 * (1 << 20));
}

TEST(AutoPolicyTest, PutsWhatIsSavedFirstIntoHostMemory) {
  std::vector<SavedMeasurement> measurements;
  for (const char* name : {"a", "b", "c", "d"}) {
    measurements.push_back(Measured(Tensor(name, {512, 128}), 1));
  }
  const auto policy = Make("auto(0.3,offload=0.3)");
  const SavedRoom room = {2, 0, {}};
  policy->SetRoom(room);
  EXPECT_TRUE(policy->MovesToHost());
  EXPECT_TRUE(Make("lean(auto(0.3,offload=0.3))")->MovesToHost());
  EXPECT_FALSE(Make("auto(0.3,offload=0)")->MovesToHost());
  EXPECT_EQ(Make("auto(0.3,offload=0)")->text(), "auto(0.3)");
  EXPECT_FALSE(policy->Treat(measurements[0].tensor).is_offloaded);

  ASSERT_TRUE(policy->Plan(1, measurements).ok());

  int64_t host = 0;
  int64_t device = 0;
  for (const SavedMeasurement& measurement : measurements) {
    const SavedTreatment treatment = policy->Treat(measurement.tensor);
    const int64_t bytes =
        PackedBytes(measurement, BitsOf(*policy, measurement.tensor));
    (treatment.is_offloaded ? host : device) += 2 * bytes;
  }
  EXPECT_LE(host, 0.3 * (1 << 20));
  EXPECT_LE(device, 0.3 * (1 << 20));
  EXPECT_THAT(policy->Treat(measurements[0].tensor).reason,
              StartsWith("in host memory, 8 bits, as planned"));
  EXPECT_FALSE(policy->Treat(measurements[3].tensor).is_offloaded);
  const auto successor = Make(policy->text());
  ASSERT_TRUE(successor->Restore(policy->Save()).ok());
  EXPECT_TRUE(successor->Treat(measurements[0].tensor).is_offloaded);
  // What is kept as it is stays where it is.
  policy->Raise("gelu");
  EXPECT_EQ(policy->Treat(measurements[0].tensor).codec, nullptr);
  EXPECT_FALSE(policy->Treat(measurements[0].tensor).is_offloaded);
}

TEST(AutoPolicyTest, NamesTheSmallestBudgetBesideItsHostMemory) {
  const std::vector<SavedMeasurement> measurements = {
      Measured(Tensor("a", {512, 128}), 1),
      Measured(Tensor("b", {512, 128}), 9)};
  const auto policy = Make("auto(0.01,offload=0.02)");

  const absl::Status status = policy->Plan(1, measurements);

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("beside what waits in host memory; "
                        "auto(0.02,offload=0.02) is the smallest"));
  EXPECT_TRUE(Make("auto(0.02,offload=0.02)")->Plan(1, measurements).ok());
}

TEST(AutoPolicyTest, TakesTheDerivativeWhereItSparesMore) {
  std::vector<SavedMeasurement> measurements;
  for (const char* name : {"better", "worse", "none"}) {
    measurements.push_back(Measured(Tensor(name, {512, 128}), 1));
    measurements.back().sensitivity = 1;
  }
  measurements[0].tensor.substitute = SavedSubstitute::kDerivative;
  measurements[0].derivative_sensitivity = 0.1;
  measurements[1].tensor.substitute = SavedSubstitute::kDerivative;
  measurements[1].derivative_sensitivity = 10;
  SavedTensor norm = Tensor("norm", {512, 128});
  norm.substitute = SavedSubstitute::kOutput;
  measurements.push_back(Measured(norm, 1));
  // Four bits of each, were the norm's not left out.
  const int64_t budget = 4 * PackedBytes(measurements[0], 4);
  const auto policy =
      Make(absl::StrCat("auto(", static_cast<double>(budget) / (1 << 20), ")"));
  EXPECT_FALSE(policy->Treat(measurements[0].tensor).takes_substitute);

  ASSERT_TRUE(policy->Plan(1, measurements).ok());

  const SavedTreatment better = policy->Treat(measurements[0].tensor);
  EXPECT_TRUE(better.takes_substitute);
  EXPECT_THAT(better.reason, HasSubstr("of the derivative"));
  EXPECT_FALSE(policy->Treat(measurements[1].tensor).takes_substitute);
  EXPECT_TRUE(policy->Treat(norm).takes_substitute);
  int64_t bytes = 0;
  for (int i = 0; i < 3; ++i) {
    const SavedTreatment treatment = policy->Treat(measurements[i].tensor);
    bytes += treatment.codec == nullptr
                 ? 512 * 128 * 4
                 : treatment.codec->MaxPayloadBytes(512 * 128);
  }
  EXPECT_LE(bytes, budget);
  EXPECT_GT(bytes, budget / 2);
  const auto successor = Make(policy->text());
  ASSERT_TRUE(successor->Restore(policy->Save()).ok());
  EXPECT_TRUE(successor->Treat(measurements[0].tensor).takes_substitute);
  // Raised, it moves up like any other.
  EXPECT_THAT(policy->Raise(measurements[0].tensor.op),
              HasSubstr("of the derivative"));
}

TEST(AutoPolicyTest, CountsRaisesAgainstItsBudget) {
  const std::vector<SavedMeasurement> measurements = {
      Measured(Tensor("a", {512, 128}, "gelu"), 1),
      Measured(Tensor("b", {512, 128}, "add"), 1)};
  const auto policy = Make("auto(0.055)");
  ASSERT_TRUE(policy->Plan(1, measurements).ok());
  policy->Raise("gelu");

  ASSERT_TRUE(policy->Plan(2, measurements).ok());

  int64_t bytes = 0;
  for (const SavedMeasurement& measurement : measurements) {
    bytes += PackedBytes(measurement, BitsOf(*policy, measurement.tensor));
  }
  EXPECT_LE(bytes, static_cast<int64_t>(0.055 * (1 << 20)));
  EXPECT_GE(BitsOf(*policy, measurements[0].tensor), 4);
}

// The next plan could have lower bits, raised by as many levels.
TEST(AutoPolicyTest, APlanDoesNotGoBelowWhatARaiseReached) {
  const std::vector<SavedMeasurement> measurements = {
      Measured(Tensor("a", {512, 128}, "gelu"), 1),
      Measured(Tensor("b", {512, 128}, "add"), 1)};
  const auto policy = Make("auto(0.085)");
  ASSERT_TRUE(policy->Plan(1, measurements).ok());
  const SavedTensor& gelu = measurements[0].tensor;
  const int planned = BitsOf(*policy, gelu);
  policy->Raise("gelu");
  const int raised = BitsOf(*policy, gelu);
  ASSERT_GT(raised, planned);
  // It would take bits from what matters less.
  std::vector<SavedMeasurement> later = measurements;
  later[0].sensitivity = 1e-9;

  ASSERT_TRUE(policy->Plan(2, later).ok());

  EXPECT_GE(BitsOf(*policy, gelu), raised);
  const auto successor = Make(policy->text());
  ASSERT_TRUE(successor->Restore(policy->Save()).ok());
  ASSERT_TRUE(successor->Plan(3, later).ok());
  EXPECT_GE(BitsOf(*successor, gelu), raised);
}

}  // namespace
}  // namespace deltapipe
