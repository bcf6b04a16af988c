// What every policy for saved activations must keep, whatever it does: the
// promises of saved_policy.h, over several texts of every row of
// saved_policies.def.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "compression/bit_plan/saved_policy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

const char* const kTexts[] = {
    "none",
    "fixed(int(4))",
    "fixed(none)",
    "fixed(nonzero(error_bound(rel=0.01)))",
    "actnn",
    "actnn(bits=1)",
    "actnn(bits=4)",
    "actnn(bits=8)",
    "actnn(bits=L1)",
    "actnn(bits=L2)",
    "gact",
    "gact(bits=2,every=10)",
    "comet",
    "comet(target=0.1)",
    "division",
    "division(low=int8,high=4)",
    "mesa",
    "mesa(bits=4,head=32)",
    "recompute",
    "recompute(every=4,codec=int(8))",
    "offload",
    "offload(codec=cast(bf16))",
    "auto(64)",
    "auto(0.5)",
    "auto(0.5,slowdown=0.2)",
    "auto(0.4,offload=0.12)",
    "auto(0.4,slowdown=0.2,offload=0.12)",
    "auto(0.6,offload=0.1)",
    "auto(0.35,offload=0.3)",
    "auto(0.8)",
    "auto(1)",
    "lean(none)",
    "lean(fixed(int(4)))",
    "lean(actnn)",
    "lean(recompute(every=4,codec=int(8)),derivative=1)",
    "lean(auto(64))",
    "lean(auto(64,slowdown=0.2))",
    "lean(gact(bits=2,every=10),derivative=8)",
};

SavedTensor Tensor(std::string name, std::string op,
                   std::vector<int64_t> shape) {
  SavedTensor tensor;
  tensor.name = std::move(name);
  tensor.layer = "layer";
  tensor.op = std::move(op);
  tensor.num_elements = 1;
  for (const int64_t extent : shape) tensor.num_elements *= extent;
  tensor.shape = std::move(shape);
  return tensor;
}

// Of all kinds, small and odd ones among them.
std::vector<SavedTensor> Tensors() {
  std::vector<SavedTensor> tensors = {
      Tensor("blocks.0/gelu/0", "gelu", {4, 64, 128}),
      Tensor("blocks.1/gelu/0", "gelu", {4, 64, 128}),
      Tensor("blocks.0/add/0", "add", {256, 128}),
      Tensor("conv.0/relu/0", "relu", {8, 16, 28, 28}),
      Tensor("conv.1/relu/0", "relu", {8, 16, 7, 7}),
      Tensor("conv.2/convolution/0", "convolution", {8, 16, 1, 1}),
      Tensor("vector", "mul", {5000}),
      Tensor("odd\tname", "softmax", {3, 5, 7, 11, 13}),
  };
  tensors[3].keeps_zeros = true;
  tensors[2].element_bytes = 2;
  return tensors;
}

// Of operators that can do with something else.
std::vector<SavedTensor> TensorsWithSubstitute() {
  std::vector<SavedTensor> tensors = {
      Tensor("blocks.0/addmm/0", "addmm", {4, 64, 128}),
      Tensor("blocks.0/add/1", "add", {4, 64, 128}),
  };
  tensors[0].substitute = SavedSubstitute::kDerivative;
  tensors[1].substitute = SavedSubstitute::kOutput;
  return tensors;
}

SavedMeasurement Measured(const SavedTensor& tensor, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> share(0.1, 1);
  SavedMeasurement measurement;
  measurement.tensor = tensor;
  measurement.range_squares =
      share(random) * static_cast<double>(tensor.num_elements) / 16;
  measurement.gradient_squares = std::exp(5 * share(random));
  measurement.gradient_mean_abs = 0.01 * share(random);
  measurement.gradient_elements = 2 * tensor.num_elements;
  measurement.reader = seed % 3 == 0   ? "native_layer_norm"
                       : seed % 3 == 1 ? "addmm"
                                       : "convolution";
  measurement.nonzero_share = tensor.keeps_zeros ? 0.5 : 1;
  measurement.parameter_gradient_mean_abs = 0.1 * share(random);
  measurement.sensitivity = std::exp(8 * share(random));
  return measurement;
}

std::vector<SavedMeasurement> AllMeasured() {
  std::vector<SavedMeasurement> measurements;
  uint32_t seed = 0;
  for (const SavedTensor& tensor : Tensors()) {
    measurements.push_back(Measured(tensor, ++seed));
  }
  return measurements;
}

std::string CodecText(const SavedTreatment& treatment) {
  return treatment.codec == nullptr ? "as it is" : treatment.codec->text();
}

// All that a treatment says.
std::string TreatmentText(const SavedTreatment& treatment) {
  return absl::StrCat(
      CodecText(treatment), "; ", treatment.is_offloaded ? "offloaded; " : "",
      treatment.takes_substitute ? "substitute; " : "", treatment.reason);
}

std::vector<std::string> Treatments(const SavedPolicy& policy) {
  std::vector<std::string> texts;
  for (const SavedTensor& tensor : Tensors()) {
    texts.push_back(TreatmentText(policy.Treat(tensor)));
  }
  for (const SavedTensor& tensor : TensorsWithSubstitute()) {
    texts.push_back(TreatmentText(policy.Treat(tensor)));
  }
  texts.push_back(TreatmentText(policy.Treat(Tensor("new", "new", {64, 64}))));
  return texts;
}

std::unique_ptr<SavedPolicy> Make(const std::string& text) {
  auto policy = MakeSavedPolicy(text);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

// Mean squared error of normal values; 0: kept as they are.
double ErrorOf(const SavedTreatment& treatment, const SavedTensor& tensor) {
  if (treatment.codec == nullptr) return 0;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(tensor.num_elements), decoded(tensor.num_elements);
  for (float& value : values) value = normal(random);
  std::vector<uint8_t> payload(
      treatment.codec->MaxPayloadBytes(tensor.num_elements));
  const auto size =
      treatment.codec->Encode(values, RandomKey{}, absl::MakeSpan(payload));
  EXPECT_TRUE(size.ok()) << size.status();
  EXPECT_TRUE(treatment.codec
                  ->Decode(absl::MakeConstSpan(payload).first(*size),
                           absl::MakeSpan(decoded))
                  .ok());
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    sum += std::pow(static_cast<double>(values[i]) - decoded[i], 2);
  }
  return sum / static_cast<double>(values.size());
}

class SavedPolicyConformanceTest
    : public ::testing::TestWithParam<const char*> {};

TEST_P(SavedPolicyConformanceTest, TextMakesAnEqualPolicy) {
  const auto policy = Make(GetParam());
  const auto again = Make(policy->text());

  EXPECT_EQ(again->text(), policy->text());
  EXPECT_EQ(Treatments(*again), Treatments(*policy));
  EXPECT_EQ(again->recompute_every(), policy->recompute_every());
  EXPECT_EQ(again->measures().every_steps, policy->measures().every_steps);
}

TEST_P(SavedPolicyConformanceTest, TreatIsAFunctionOfItsArgument) {
  const auto policy = Make(GetParam());
  ASSERT_TRUE(policy->Plan(10, AllMeasured()).ok());
  const std::vector<std::string> first = Treatments(*policy);

  // Other shapes and tensors in between.
  SavedTensor shorter = Tensors()[0];
  shorter.shape = {1, 64, 128};
  shorter.num_elements = 64 * 128;
  for (int i = 0; i < 40; ++i) {
    policy->Treat(Tensor(absl::StrCat("other ", i), "gelu", {i + 1, 100}));
    policy->Treat(Tensor("blocks.0/gelu/0", "gelu", {i + 1, 64, 128}));
  }
  const std::string short_one = TreatmentText(policy->Treat(shorter));
  for (SavedTensor tensor : Tensors()) {
    tensor.keeps_zeros = !tensor.keeps_zeros;
    policy->Treat(tensor);
    tensor.element_bytes = 6 - tensor.element_bytes;
    policy->Treat(tensor);
    tensor.op = "raised";
    policy->Treat(tensor);
  }

  EXPECT_EQ(Treatments(*policy), first);
  EXPECT_EQ(TreatmentText(policy->Treat(shorter)), short_one);
  // The codec itself is made once.
  EXPECT_EQ(policy->Treat(shorter).codec, policy->Treat(shorter).codec);
}

TEST_P(SavedPolicyConformanceTest, AnyTensorGetsATreatmentWithAReason) {
  const auto policy = Make(GetParam());
  for (const int element_bytes : {2, 4, 8}) {
    for (SavedTensor tensor :
         {Tensor("", "", {}), Tensor("a", "b", {0}), Tensor("a", "b", {0, 7}),
          Tensor("a", "b", {1}), Tensor("a", "b", {3, 1, 1, 1}),
          Tensor("a", "b", {-1, 4}), Tensor("a", "b", {1, 1, 2, 2}),
          Tensor("a", "b", {int64_t{1} << 40, 4})}) {
      tensor.element_bytes = element_bytes;
      tensor.num_elements = std::max<int64_t>(tensor.num_elements, 0);

      const SavedTreatment treatment = policy->Treat(tensor);

      EXPECT_FALSE(treatment.reason.empty());
    }
  }
}

TEST_P(SavedPolicyConformanceTest, PackedIsNeverLargerThanRaw) {
  const auto policy = Make(GetParam());
  for (const SavedTensor& tensor : Tensors()) {
    const SavedTreatment treatment = policy->Treat(tensor);
    if (treatment.codec == nullptr) continue;
    if (!treatment.codec->traits().has_fixed_size) continue;
    EXPECT_LE(treatment.codec->MaxPayloadBytes(tensor.num_elements),
              tensor.num_elements * tensor.element_bytes)
        << tensor.name;
  }
}

TEST_P(SavedPolicyConformanceTest, ASubstituteIsTakenWhereThereIsOne) {
  const auto policy = Make(GetParam());
  const bool is_lean = absl::StartsWith(GetParam(), "lean");
  const bool is_auto = absl::StartsWith(GetParam(), "auto");
  for (SavedTensor tensor : TensorsWithSubstitute()) {
    const SavedTreatment treatment = policy->Treat(tensor);
    // auto takes derivatives once they were measured.
    EXPECT_EQ(
        treatment.takes_substitute,
        is_lean || (is_auto && tensor.substitute == SavedSubstitute::kOutput));
    if (treatment.takes_substitute) {
      EXPECT_EQ(treatment.codec != nullptr,
                tensor.substitute == SavedSubstitute::kDerivative);
    }
    tensor.substitute = SavedSubstitute::kNone;
    EXPECT_FALSE(policy->Treat(tensor).takes_substitute);
  }
}

TEST_P(SavedPolicyConformanceTest, NoMeasurementsChangeNothing) {
  const auto policy = Make(GetParam());
  ASSERT_TRUE(policy->Plan(1, AllMeasured()).ok());
  const std::vector<std::string> before = Treatments(*policy);

  ASSERT_TRUE(policy->Plan(2, {}).ok());

  EXPECT_EQ(Treatments(*policy), before);
}

TEST_P(SavedPolicyConformanceTest, WhatIsNoFiniteNumberIsSurvived) {
  for (const double bad : {kNan, kInfinity, -kInfinity, -1.0, 0.0, 1e308}) {
    SCOPED_TRACE(bad);
    const auto policy = Make(GetParam());
    std::vector<SavedMeasurement> measurements = AllMeasured();
    SavedMeasurement& spoiled = measurements[1];
    spoiled.range_squares = bad;
    spoiled.gradient_squares = bad;
    spoiled.gradient_mean_abs = bad;
    spoiled.nonzero_share = bad;
    spoiled.parameter_gradient_mean_abs = bad;
    spoiled.sensitivity = bad;
    spoiled.reuse = bad;

    ASSERT_TRUE(policy->Plan(1, measurements).ok());

    const SavedTreatment treatment = policy->Treat(spoiled.tensor);
    if (absl::StrContains(treatment.reason, "nothing finite")) {
      EXPECT_THAT(CodecText(treatment), HasSubstr("int(8,"));
      EXPECT_THAT(treatment.reason, HasSubstr("8 bits, since nothing finite"));
    }
    // All others are what a plan without it would allow to be decided.
    for (const SavedMeasurement& measurement : measurements) {
      EXPECT_FALSE(policy->Treat(measurement.tensor).reason.empty());
    }
    // Nothing at all that can be used, and one tensor twice.
    for (SavedMeasurement& measurement : measurements) {
      measurement.range_squares = bad;
      measurement.sensitivity = bad;
      measurement.gradient_mean_abs = bad;
    }
    measurements.push_back(measurements[0]);
    ASSERT_TRUE(policy->Plan(2, measurements).ok());
    Treatments(*policy);
  }
}

TEST_P(SavedPolicyConformanceTest, RestoredDecidesAlike) {
  const auto policy = Make(GetParam());
  EXPECT_TRUE(Make(GetParam())->Restore(policy->Save()).ok());
  std::vector<SavedMeasurement> measurements = AllMeasured();
  measurements[2].range_squares = kNan;
  measurements[2].sensitivity = kNan;
  ASSERT_TRUE(policy->Plan(1, measurements).ok());
  policy->Raise("gelu");
  policy->Raise("relu");
  policy->Raise("relu");
  const auto restored = Make(policy->text());

  ASSERT_TRUE(restored->Restore(policy->Save()).ok());

  EXPECT_EQ(Treatments(*restored), Treatments(*policy));
  EXPECT_EQ(restored->Save(), policy->Save());
  EXPECT_EQ(restored->Raise("gelu"), policy->Raise("gelu"));
  EXPECT_EQ(Treatments(*restored), Treatments(*policy));
}

TEST_P(SavedPolicyConformanceTest, StatesOfOthersAreRefusedAndChangeNothing) {
  const auto policy = Make(GetParam());
  ASSERT_TRUE(policy->Plan(1, AllMeasured()).ok());
  policy->Raise("gelu");
  const std::vector<std::string> before = Treatments(*policy);
  const auto other =
      Make(absl::StartsWith(GetParam(), "fixed(int(4") ? "fixed(int(3))"
                                                       : "fixed(int(4))");

  const absl::Status status = policy->Restore(other->Save());

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 2: expected"));
  EXPECT_EQ(policy->Restore("").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Treatments(*policy), before);
}

// An op is raised until it is kept as it is; its error never grows on the way,
// and no other op moves.
TEST_P(SavedPolicyConformanceTest, RaisesEndWithTensorsAsTheyAre) {
  for (const bool is_planned : {false, true}) {
    SCOPED_TRACE(is_planned ? "planned" : "not planned");
    const auto policy = Make(GetParam());
    if (is_planned) {
      ASSERT_TRUE(policy->Plan(1, AllMeasured()).ok());
    }
    const SavedTensor gelu = Tensors()[0], add = Tensors()[2];
    const std::string add_before = TreatmentText(policy->Treat(add));
    double error = ErrorOf(policy->Treat(gelu), gelu);
    int num_raises = 0;

    while (true) {
      const std::string before = CodecText(policy->Treat(gelu));
      const std::string said = policy->Raise("gelu");
      const double raised_error = ErrorOf(policy->Treat(gelu), gelu);
      EXPECT_LE(raised_error, error * 1.0001);
      error = raised_error;
      if (said.empty()) {
        EXPECT_EQ(CodecText(policy->Treat(gelu)), before);
        break;
      }
      EXPECT_THAT(said, HasSubstr("gelu: from "));
      ASSERT_LT(++num_raises, 10) << said;
    }

    EXPECT_EQ(policy->Treat(gelu).codec, nullptr);
    EXPECT_EQ(policy->Raise("gelu"), "");
    EXPECT_EQ(TreatmentText(policy->Treat(add)), add_before);
  }
}

TEST_P(SavedPolicyConformanceTest, ARaiseOutlivesTheNextPlan) {
  const auto policy = Make(GetParam());
  ASSERT_TRUE(policy->Plan(1, AllMeasured()).ok());
  const SavedTensor gelu = Tensors()[0];
  while (!policy->Raise("gelu").empty()) {
  }

  ASSERT_TRUE(policy->Plan(2, AllMeasured()).ok());

  EXPECT_EQ(policy->Treat(gelu).codec, nullptr);
}

INSTANTIATE_TEST_SUITE_P(AllPolicies, SavedPolicyConformanceTest,
                         ::testing::ValuesIn(kTexts),
                         [](const ::testing::TestParamInfo<const char*>& info) {
                           std::string name = info.param;
                           std::replace_if(
                               name.begin(), name.end(),
                               [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

TEST(SavedPolicyListTest, EveryPolicyOfTheListHasACase) {
  for (const SavedPolicyInfo& info : AllSavedPolicies()) {
    EXPECT_TRUE(std::any_of(std::begin(kTexts), std::end(kTexts),
                            [&](absl::string_view text) {
                              return text == info.name ||
                                     absl::StartsWith(
                                         text, absl::StrCat(info.name, "("));
                            }))
        << info.name;
    EXPECT_FALSE(info.summary.empty());
  }
}

}  // namespace
}  // namespace deltapipe
