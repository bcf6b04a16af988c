#include "worker/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/optimizer_kind.h"
#include "base/wide_vectors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/optim/adam.h"
#include "worker/optim/lamb.h"
#include "worker/optim/make_flat_optimizer.h"
#include "worker/optim/sgd.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kSeed = 608;

OptimizerOptions OptionsOf(const std::string& kind) {
  OptimizerOptions options;
  options.kind = kind;
  options.weight_decay = 0.01;
  options.compress_after_step = 3;
  // 0/1 Adam: steps 0 and 1 update the variance, step 2 does not; 3, 4, 5, 7
  // and 11 are synchronisation points, those between them are local.
  options.variance_update_scaler = 1;
  options.local_step_scaler = 2;
  options.local_step_clipper = 4;
  return options;
}

ParameterLayout TestLayout() { return LayoutOf({30, 5, 601, 1, 17}); }

// References: each rule of the headers, written out for one step of one tensor.

struct ReferenceTensor {
  std::vector<double> w, m, v;
  double decay = 0;
  double lr_scale = 1;
};

using Rule =
    std::function<void(const OptimizerOptions& o, int64_t t, double lr,
                       const std::vector<double>& g, ReferenceTensor* tensor)>;

void SgdRule(const OptimizerOptions& o, int64_t t, double lr,
             const std::vector<double>& g, ReferenceTensor* tensor) {
  for (size_t i = 0; i < g.size(); ++i) {
    const double gradient = g[i] + tensor->decay * tensor->w[i];
    tensor->m[i] = o.momentum * tensor->m[i] + gradient;
    tensor->w[i] = tensor->w[i] - lr * tensor->m[i];
  }
}

void ShiftedSgdRule(const OptimizerOptions& o, int64_t t, double lr,
                    const std::vector<double>& g, ReferenceTensor* tensor) {
  std::vector<double>& momentum = t % 2 == 0 ? tensor->v : tensor->m;
  for (size_t i = 0; i < g.size(); ++i) {
    const double gradient = g[i] + tensor->decay * tensor->w[i];
    momentum[i] = o.momentum * momentum[i] + gradient;
    tensor->w[i] = tensor->w[i] - lr * momentum[i];
  }
}

void AdamWRule(const OptimizerOptions& o, int64_t t, double lr,
               const std::vector<double>& g, ReferenceTensor* tensor) {
  for (size_t i = 0; i < g.size(); ++i) {
    tensor->m[i] = o.beta1 * tensor->m[i] + (1 - o.beta1) * g[i];
    tensor->v[i] = o.beta2 * tensor->v[i] + (1 - o.beta2) * g[i] * g[i];
    const double m_hat = tensor->m[i] / (1 - std::pow(o.beta1, double(t)));
    const double v_hat = tensor->v[i] / (1 - std::pow(o.beta2, double(t)));
    tensor->w[i] -= lr * (m_hat / (std::sqrt(v_hat) + o.epsilon) +
                          tensor->decay * tensor->w[i]);
  }
}

void NesterovSgdRule(const OptimizerOptions& o, int64_t t, double lr,
                     const std::vector<double>& g, ReferenceTensor* tensor) {
  for (size_t i = 0; i < g.size(); ++i) {
    const double gradient = g[i] + tensor->decay * tensor->w[i];
    tensor->m[i] = o.momentum * tensor->m[i] + gradient;
    tensor->w[i] -= lr * (gradient + o.momentum * tensor->m[i]);
  }
}

/// The weights of AdamW moved ahead by its update times `look_ahead`.
void AheadAdamWRule(const OptimizerOptions& o, int64_t t, double lr,
                    const std::vector<double>& g, ReferenceTensor* tensor) {
  for (size_t i = 0; i < g.size(); ++i) {
    const double former =
        t == 1 ? g[i] : tensor->m[i] / (1 - std::pow(o.beta1, double(t - 1)));
    tensor->m[i] = o.beta1 * tensor->m[i] + (1 - o.beta1) * g[i];
    tensor->v[i] = o.beta2 * tensor->v[i] + (1 - o.beta2) * g[i] * g[i];
    const double new_hat = tensor->m[i] / (1 - std::pow(o.beta1, double(t)));
    const double m_hat = new_hat + o.look_ahead * (new_hat - former);
    const double v_hat = tensor->v[i] / (1 - std::pow(o.beta2, double(t)));
    tensor->w[i] -= lr * (m_hat / (std::sqrt(v_hat) + o.epsilon) +
                          tensor->decay * tensor->w[i]);
  }
}

void AdamRule(const OptimizerOptions& o, int64_t t, double lr,
              const std::vector<double>& g, ReferenceTensor* tensor) {
  for (size_t i = 0; i < g.size(); ++i) {
    const double gradient = g[i] + tensor->decay * tensor->w[i];
    tensor->m[i] = o.beta1 * tensor->m[i] + (1 - o.beta1) * gradient;
    tensor->v[i] = o.beta2 * tensor->v[i] + (1 - o.beta2) * gradient * gradient;
    const double m_hat = tensor->m[i] / (1 - std::pow(o.beta1, double(t)));
    const double v_hat = tensor->v[i] / (1 - std::pow(o.beta2, double(t)));
    tensor->w[i] -= lr * m_hat / (std::sqrt(v_hat) + o.epsilon);
  }
}

void LambRule(const OptimizerOptions& o, int64_t t, double lr,
              const std::vector<double>& g, ReferenceTensor* tensor) {
  std::vector<double> u(g.size());
  double w_squares = 0, u_squares = 0;
  for (size_t i = 0; i < g.size(); ++i) {
    tensor->m[i] = o.beta1 * tensor->m[i] + (1 - o.beta1) * g[i];
    tensor->v[i] = o.beta2 * tensor->v[i] + (1 - o.beta2) * g[i] * g[i];
    u[i] = tensor->m[i] / (std::sqrt(tensor->v[i]) + o.epsilon) +
           tensor->decay * tensor->w[i];
    w_squares += tensor->w[i] * tensor->w[i];
    u_squares += u[i] * u[i];
  }
  double c = 1;
  if (w_squares > 0 && u_squares > 0) {
    c = std::sqrt(w_squares / u_squares);
    c = std::max(o.min_coefficient, std::min(o.max_coefficient, c));
  }
  for (size_t i = 0; i < g.size(); ++i) tensor->w[i] -= lr * c * u[i];
}

/// Runs `optimizer` and `rule` side by side with a varying rate and clip
/// factor; returns the largest difference of a weight.
template <typename Real>
double LargestDifference(FlatOptimizer<Real>* optimizer,
                         const OptimizerOptions& options, const Rule& rule) {
  const ParameterLayout& layout = optimizer->layout();
  const ToyProblem problem(layout, kSeed);
  std::vector<Real> weights(problem.start().begin(), problem.start().end());
  std::vector<ReferenceTensor> tensors;
  for (const ParameterSegment& segment : layout.segments) {
    const size_t size = static_cast<size_t>(segment.num_elements);
    ReferenceTensor tensor;
    tensor.w.assign(problem.start().begin() + segment.offset,
                    problem.start().begin() + segment.offset + size);
    tensor.m.resize(size);
    tensor.v.resize(size);
    tensor.decay = segment.has_weight_decay ? options.weight_decay : 0;
    if (segment.weight_decay.has_value()) tensor.decay = *segment.weight_decay;
    tensor.lr_scale = segment.learning_rate_scale;
    tensors.push_back(tensor);
  }

  double largest = 0;
  for (int64_t step = 0; step < 50; ++step) {
    const double lr = 1e-3 * double(step % 7);
    const double clip = step % 2 == 0 ? 1.0 : 0.375;
    std::vector<Real> gradient = problem.Gradient(0, step, weights);
    for (size_t l = 0; l < tensors.size(); ++l) {
      const auto begin = gradient.begin() + layout.segments[l].offset;
      std::vector<double> g(begin, begin + layout.segments[l].num_elements);
      for (double& value : g) value *= clip;
      rule(options, step + 1, lr * tensors[l].lr_scale, g, &tensors[l]);
    }
    optimizer->Prepare(step, lr, weights, absl::MakeSpan(gradient));
    optimizer->Apply(step, lr, clip, absl::MakeSpan(weights));
    for (size_t l = 0; l < tensors.size(); ++l) {
      for (size_t i = 0; i < tensors[l].w.size(); ++i) {
        const size_t at = static_cast<size_t>(layout.segments[l].offset) + i;
        largest =
            std::max(largest, std::abs(double(weights[at]) - tensors[l].w[i]));
      }
    }
  }
  return largest;
}

TEST(OptimizerTest, SgdFollowsItsReferenceStepByStep) {
  const OptimizerOptions options = OptionsOf("sgd");
  Sgd<double> in_double(options, TestLayout());
  Sgd<float> in_float(options, TestLayout());

  EXPECT_LE(LargestDifference<double>(&in_double, options, SgdRule), 1e-12);
  EXPECT_LE(LargestDifference<float>(&in_float, options, SgdRule), 2e-5);
}

TEST(OptimizerTest, SgdWithShiftedMomentumFollowsItsReferenceStepByStep) {
  OptimizerOptions options = OptionsOf("sgd");
  options.momentum_shift = 1;
  Sgd<double> in_double(options, TestLayout());
  Sgd<float> in_float(options, TestLayout());

  EXPECT_LE(LargestDifference<double>(&in_double, options, ShiftedSgdRule),
            1e-12);
  EXPECT_LE(LargestDifference<float>(&in_float, options, ShiftedSgdRule), 2e-5);
  EXPECT_EQ(in_double.ExportState().size(), 2u);
}

TEST(OptimizerTest, ALookAheadFollowsItsReferenceStepByStep) {
  OptimizerOptions options = OptionsOf("sgd");
  options.look_ahead = options.momentum;
  Sgd<double> sgd(options, TestLayout());
  EXPECT_LE(LargestDifference<double>(&sgd, options, NesterovSgdRule), 1e-12);

  options = OptionsOf("adamw");
  options.look_ahead = 2;
  Adam<double> adam(options, TestLayout());
  EXPECT_LE(LargestDifference<double>(&adam, options, AheadAdamWRule), 1e-12);
}

TEST(OptimizerTest, AdamWFollowsItsReferenceStepByStep) {
  const OptimizerOptions options = OptionsOf("adamw");
  Adam<double> in_double(options, TestLayout());
  Adam<float> in_float(options, TestLayout());

  EXPECT_LE(LargestDifference<double>(&in_double, options, AdamWRule), 1e-12);
  EXPECT_LE(LargestDifference<float>(&in_float, options, AdamWRule), 2e-5);
}

TEST(OptimizerTest, AdamFollowsItsReferenceStepByStep) {
  const OptimizerOptions options = OptionsOf("adam");
  Adam<double> in_double(options, TestLayout());
  Adam<float> in_float(options, TestLayout());

  EXPECT_LE(LargestDifference<double>(&in_double, options, AdamRule), 1e-12);
  EXPECT_LE(LargestDifference<float>(&in_float, options, AdamRule), 2e-5);
}

TEST(OptimizerTest, LambFollowsItsReferenceStepByStep) {
  const OptimizerOptions options = OptionsOf("lamb");
  Lamb<double> in_double(options, TestLayout());
  Lamb<float> in_float(options, TestLayout());

  EXPECT_LE(LargestDifference<double>(&in_double, options, LambRule), 1e-12);
  EXPECT_LE(LargestDifference<float>(&in_float, options, LambRule), 2e-5);
}

TEST(OptimizerTest, GroupsFollowTheReferencesStepByStep) {
  const std::vector<std::pair<std::string, Rule>> rules = {{"sgd", SgdRule},
                                                           {"adam", AdamRule},
                                                           {"adamw", AdamWRule},
                                                           {"lamb", LambRule}};
  const ParameterLayout layout = WithGroups(TestLayout());
  for (const auto& [kind, rule] : rules) {
    const OptimizerOptions options = OptionsOf(kind);
    const auto in_double = MakeFlatOptimizer<double>(options, layout);
    const auto in_float = MakeFlatOptimizer<float>(options, layout);

    EXPECT_LE(LargestDifference<double>(in_double.get(), options, rule), 1e-12)
        << kind;
    EXPECT_LE(LargestDifference<float>(in_float.get(), options, rule), 2e-5)
        << kind;
  }
}

TEST(OptimizerTest, LambKeepsItsCoefficientInRange) {
  OptimizerOptions options = OptionsOf("lamb");
  options.weight_decay = 0;
  options.max_coefficient = 0.3;
  options.min_coefficient = 0.2;
  const ParameterLayout layout = LayoutOf({4});

  for (const auto& [weight, coefficient] :
       std::map<float, float>{{100.0f, 0.3f}, {1e-3f, 0.2f}, {0.0f, 1.0f}}) {
    auto optimizer = *Optimizer::Create(options, layout);
    std::vector<float> weights(4, weight);
    std::vector<float> gradient(4, 1.0f);
    optimizer->Prepare(0, 1.0, weights, absl::MakeSpan(gradient));
    ASSERT_TRUE(optimizer->Apply(0, 1.0, 1.0, absl::MakeSpan(weights)).ok());
    const float u = 0.1f / std::sqrt(0.001f);
    EXPECT_NEAR(weights[0], weight - coefficient * u, 1e-5) << weight;
  }
}

// First step of AdamW: m_hat = g and v_hat = g^2, so the weight moves by
// rate * (sign(g) + decay * w), whatever the size of the gradient.
TEST(OptimizerTest, AdamWMovesByTheRateAtFirst) {
  auto optimizer = *Optimizer::Create(OptionsOf("adamw"), LayoutOf({16}));
  std::vector<float> weights(16, 2.0f);
  std::vector<float> gradient(16, 1000.0f);
  gradient[3] = -1e-3f;

  optimizer->Prepare(0, 0.1, weights, absl::MakeSpan(gradient));
  ASSERT_TRUE(optimizer->Apply(0, 0.1, 1.0, absl::MakeSpan(weights)).ok());

  EXPECT_NEAR(weights[0], 2.0 - 0.1 * (1.0 + 0.02), 1e-6);
  EXPECT_NEAR(weights[3], 2.0 - 0.1 * (-1.0 + 0.02), 1e-5);
}

class EveryOptimizerTest : public ::testing::TestWithParam<std::string> {
 protected:
  EveryOptimizerTest()
      : layout_(TestLayout()),
        problem_(layout_, kSeed),
        weights_(problem_.start().begin(), problem_.start().end()) {}

  std::unique_ptr<Optimizer> Make() const {
    auto optimizer = Optimizer::Create(OptionsOf(GetParam()), layout_);
    EXPECT_TRUE(optimizer.ok()) << optimizer.status();
    return *std::move(optimizer);
  }

  void Step(Optimizer* optimizer, int64_t step, std::vector<float>* weights) {
    std::vector<float> gradient = problem_.Gradient(0, step, *weights);
    const SyncRequest request =
        optimizer->Prepare(step, 1e-3, *weights, absl::MakeSpan(gradient));
    ASSERT_EQ(request.values.size(),
              request.format == SyncFormat::kNone ? 0 : weights->size());
    // Something that a synchronisation might return.
    for (float& value : request.values) value *= 0.75f;
    ASSERT_TRUE(
        optimizer->Apply(step, 1e-3, 0.5, absl::MakeSpan(*weights)).ok());
  }

  const ParameterLayout layout_;
  const ToyProblem problem_;
  std::vector<float> weights_;
};

// Through warm-up, freeze and compressed steps.
TEST_P(EveryOptimizerTest, AScaleOfZeroFreezesATensorAndNothingElse) {
  ParameterLayout layout = TestLayout();
  layout.segments[2].learning_rate_scale = 0;
  auto optimizer = *Optimizer::Create(OptionsOf(GetParam()), layout);
  auto without = Make();
  std::vector<float> weights = weights_;
  std::vector<float> plain = weights_;

  for (int64_t step = 0; step < 12; ++step) {
    Step(optimizer.get(), step, &weights);
    Step(without.get(), step, &plain);
  }

  for (size_t i = 0; i < weights.size(); ++i) {
    const bool is_frozen = i >= 35 && i < 636;
    ASSERT_EQ(weights[i] == weights_[i], is_frozen) << i;
    if (!is_frozen) {
      ASSERT_EQ(weights[i], plain[i]) << i;
    }
  }
}

TEST_P(EveryOptimizerTest, GroupsOfOneAndTheMaskChangeNoBit) {
  ParameterLayout layout = TestLayout();
  for (ParameterSegment& segment : layout.segments) {
    segment.learning_rate_scale = 1;
    segment.weight_decay = segment.has_weight_decay ? 0.01 : 0.0;
  }
  auto grouped = *Optimizer::Create(OptionsOf(GetParam()), layout);
  auto plain = Make();
  std::vector<float> grouped_weights = weights_;
  std::vector<float> weights = weights_;

  for (int64_t step = 0; step < 12; ++step) {
    Step(grouped.get(), step, &grouped_weights);
    Step(plain.get(), step, &weights);
  }

  EXPECT_EQ(grouped_weights, weights);
}

// Compression begins at step 3.
TEST_P(EveryOptimizerTest, SkipLeavesNoTrace) {
  for (int64_t skipped = 0; skipped < 12; ++skipped) {
    auto optimizer = Make();
    std::vector<float> weights = weights_;
    for (int64_t step = 0; step < skipped; ++step) {
      Step(optimizer.get(), step, &weights);
    }
    const auto state = optimizer->ExportState();

    std::vector<float> bad(weights.size(),
                           std::numeric_limits<float>::quiet_NaN());
    const SyncRequest request =
        optimizer->Prepare(skipped, 1e-3, weights, absl::MakeSpan(bad));
    for (float& value : request.values) value = 1e30f;
    optimizer->Wake(std::vector<uint8_t>(request.excluded.size(), 1));
    optimizer->MeanGradientSquaredNorm();
    optimizer->Skip();

    EXPECT_EQ(optimizer->ExportState(), state) << "step " << skipped;
    Step(optimizer.get(), skipped + 1, &weights);
    for (const float weight : weights) ASSERT_TRUE(std::isfinite(weight));
  }
}

TEST_P(EveryOptimizerTest, ImportedStateResumesBitExactly) {
  for (int64_t resumed = 0; resumed < 12; ++resumed) {
    auto whole = Make();
    std::vector<float> weights = weights_;
    for (int64_t step = 0; step < resumed; ++step) {
      Step(whole.get(), step, &weights);
    }
    std::vector<float> resumed_weights = weights;
    auto second = Make();
    ASSERT_TRUE(second->ImportState(whole->ExportState()).ok());

    for (int64_t step = resumed; step < resumed + 5; ++step) {
      Step(whole.get(), step, &weights);
      Step(second.get(), step, &resumed_weights);
    }

    EXPECT_EQ(weights, resumed_weights) << "resumed at step " << resumed;
    EXPECT_EQ(whole->ExportState(), second->ExportState());
  }
}

TEST_P(EveryOptimizerTest, RunsAreBitwiseEqual) {
  std::vector<float> weights[2] = {weights_, weights_};

  for (std::vector<float>& own : weights) {
    auto optimizer = Make();
    for (int64_t step = 0; step < 8; ++step) Step(optimizer.get(), step, &own);
  }

  EXPECT_EQ(weights[0], weights[1]);
}

// What is not final yet is not a number.
TEST_P(EveryOptimizerTest, AGradientMayComePieceByPiece) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  std::vector<float> expected = weights_;
  auto usual = Make();
  auto late = Make();
  int num_compressed = 0;

  for (int64_t step = 0; step < 8; ++step) {
    const std::vector<float> values = problem_.Gradient(0, step, weights_);
    std::vector<float> gradient(values.size(),
                                std::numeric_limits<float>::quiet_NaN());
    const bool synchronizes = late->Synchronizes(step);
    const SyncRequest request =
        late->PrepareEarly(step, 1e-3, weights_, absl::MakeSpan(gradient));
    EXPECT_EQ(synchronizes, request.format != SyncFormat::kNone);
    num_compressed += request.format == SyncFormat::kCompressed ? 1 : 0;
    for (int64_t end = layout_.num_elements; end > 0;) {
      const int64_t begin =
          end - 1 - static_cast<int64_t>(random() % static_cast<uint64_t>(end));
      std::copy(values.begin() + begin, values.begin() + end,
                gradient.begin() + begin);
      late->TakeGradient({begin, end});
      end = begin;
    }
    for (float& value : request.values) value *= 0.75f;
    ASSERT_TRUE(late->Apply(step, 1e-3, 0.5, absl::MakeSpan(weights_)).ok());
    Step(usual.get(), step, &expected);
  }

  EXPECT_EQ(num_compressed > 0, IsCompressingKind(GetParam()));
  EXPECT_EQ(weights_, expected);
}

TEST_P(EveryOptimizerTest, WiderVectorsChangeNoBit) {
  std::vector<float> narrow = weights_;
  auto wide_optimizer = Make();
  auto narrow_optimizer = Make();
  for (int64_t step = 0; step < 8; ++step) {
    Step(wide_optimizer.get(), step, &weights_);
    const NarrowVectorsForTesting narrower;
    Step(narrow_optimizer.get(), step, &narrow);
  }
  EXPECT_EQ(weights_, narrow);
  EXPECT_EQ(wide_optimizer->ExportState(), narrow_optimizer->ExportState());
}

// In the compressed phase the gradient comes back from its momentum: g^ has
// lost some bits, but no more. (0/1 Adam's would contain the decay.)
TEST_P(EveryOptimizerTest, NormIsThatOfTheGradient) {
  OptimizerOptions options = OptionsOf(GetParam());
  options.weight_decay = 0;
  auto optimizer = *Optimizer::Create(options, layout_);
  for (int64_t step = 0; step < 6; ++step) {
    std::vector<float> gradient = problem_.Gradient(0, step, weights_);
    double expected = 0;
    for (const float value : gradient) expected += double{value} * value;

    optimizer->Prepare(step, 1e-3, weights_, absl::MakeSpan(gradient));
    const double squared = optimizer->MeanGradientSquaredNorm();

    EXPECT_NEAR(squared, expected, (step < 3 ? 1e-13 : 1e-5) * expected);
    ASSERT_TRUE(
        optimizer->Apply(step, 1e-3, 1.0, absl::MakeSpan(weights_)).ok());
  }
}

TEST_P(EveryOptimizerTest, ClipFactorZeroAppliesAZeroGradient) {
  auto clipped = Make();
  auto zero = Make();
  std::vector<float> clipped_weights = weights_;
  std::vector<float> gradient(weights_.size(), 3.0f);
  std::vector<float> zeros(weights_.size(), 0.0f);

  clipped->Prepare(0, 1e-3, clipped_weights, absl::MakeSpan(gradient));
  ASSERT_TRUE(
      clipped->Apply(0, 1e-3, 0.0, absl::MakeSpan(clipped_weights)).ok());
  zero->Prepare(0, 1e-3, weights_, absl::MakeSpan(zeros));
  ASSERT_TRUE(zero->Apply(0, 1e-3, 1.0, absl::MakeSpan(weights_)).ok());

  EXPECT_EQ(clipped_weights, weights_);
}

TEST_P(EveryOptimizerTest, RefusesDamagedState) {
  auto optimizer = Make();
  const auto state = optimizer->ExportState();
  auto missing = state;
  missing.erase("momentum");
  auto shorter = state;
  shorter["momentum"].pop_back();
  auto unknown = state;
  unknown["velocity"] = {1.0f};

  EXPECT_THAT(optimizer->ImportState(missing).ToString(),
              HasSubstr("\"momentum\" is missing"));
  EXPECT_THAT(optimizer->ImportState(shorter).ToString(),
              HasSubstr("expected 654 values, got 653"));
  EXPECT_THAT(optimizer->ImportState(unknown).ToString(),
              HasSubstr("\"velocity\" is unknown"));
  EXPECT_EQ(optimizer->ExportState(), state);
}

TEST_P(EveryOptimizerTest, TakesTheStateOfKindsThatHaveTheSame) {
  for (const absl::string_view kind : OptimizerKinds()) {
    const auto other = Optimizer::Create(OptionsOf(std::string(kind)), layout_);
    ASSERT_TRUE(other.ok()) << other.status();

    const absl::Status taken = Make()->ImportState((*other)->ExportState());

    EXPECT_EQ(taken.ok(), HaveSameState(kind, GetParam())) << taken;
  }
}

TEST_P(EveryOptimizerTest, RefusesCallsOutOfOrderAndOfAnotherSize) {
  auto optimizer = Make();
  std::vector<float> gradient(weights_.size());
  std::vector<float> small(weights_.size() - 1);

  EXPECT_EQ(optimizer->Apply(0, 0.1, 1, absl::MakeSpan(weights_)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(optimizer->Prepare(0, 0.1, weights_, absl::MakeSpan(small))
                  .values.empty());
  EXPECT_EQ(optimizer->Apply(0, 0.1, 1, absl::MakeSpan(weights_)).code(),
            absl::StatusCode::kInvalidArgument);
  optimizer->Prepare(0, 0.1, weights_, absl::MakeSpan(gradient));
  EXPECT_EQ(optimizer->Apply(0, 0.1, 1, absl::MakeSpan(small)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(optimizer->Apply(0, 0.2, 1, absl::MakeSpan(weights_)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(optimizer->Apply(0, 0.1, -1, absl::MakeSpan(weights_)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(optimizer->ImportState(optimizer->ExportState()).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(optimizer->Apply(0, 0.1, 1, absl::MakeSpan(weights_)).ok());
}

TEST_P(EveryOptimizerTest, RefusesFlagsForOtherRowsThanItExcluded) {
  auto optimizer = Make();
  std::vector<float> gradient(weights_.size(), 1.0f);
  const auto state = optimizer->ExportState();
  optimizer->Prepare(0, 0.1, weights_, absl::MakeSpan(gradient));

  optimizer->Wake({1});

  const absl::Status status =
      optimizer->Apply(0, 0.1, 1, absl::MakeSpan(weights_));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr("Wake got 1 flags, expected one"));
  EXPECT_EQ(optimizer->ExportState(), state);
}

TEST_P(EveryOptimizerTest, ADecisionDuringAStepWaitsForItsEnd) {
  auto during = Make();
  auto between = Make();
  std::vector<float> weights[2] = {weights_, weights_};
  for (int64_t step = 0; step < 5; ++step) {
    Step(during.get(), step, &weights[0]);
    Step(between.get(), step, &weights[1]);
  }
  std::vector<float> gradients[2] = {problem_.Gradient(0, 5, weights[0]),
                                     problem_.Gradient(0, 5, weights[1])};

  during->Prepare(5, 1e-3, weights[0], absl::MakeSpan(gradients[0]));
  during->SetCompressing(false);
  ASSERT_TRUE(during->Apply(5, 1e-3, 1, absl::MakeSpan(weights[0])).ok());
  between->Prepare(5, 1e-3, weights[1], absl::MakeSpan(gradients[1]));
  ASSERT_TRUE(between->Apply(5, 1e-3, 1, absl::MakeSpan(weights[1])).ok());
  between->SetCompressing(false);

  EXPECT_EQ(weights[0], weights[1]);
  EXPECT_EQ(during->ExportState(), between->ExportState());
}

TEST_P(EveryOptimizerTest, AnEmptyStageIsAllowed) {
  auto optimizer = Optimizer::Create(OptionsOf(GetParam()), LayoutOf({0}));
  ASSERT_TRUE(optimizer.ok());

  for (int64_t step = 0; step < 5; ++step) {
    (*optimizer)->Prepare(step, 0.1, {}, {});
    EXPECT_EQ((*optimizer)->MeanGradientSquaredNorm(), 0);
    EXPECT_TRUE((*optimizer)->Apply(step, 0.1, 1, {}).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryOptimizerTest,
                         ::testing::Values("sgd", "adam", "adamw", "lamb",
                                           "onebit_adam", "onebit_lamb",
                                           "zero_one_adam"),
                         [](const auto& info) { return info.param; });

TEST(OptimizerTest, EveryBadOptionIsNamed) {
  OptimizerOptions options;
  options.kind = "onebit_lamb";
  options.beta1 = 1.0;
  options.beta2 = -0.1;
  options.epsilon = 0;
  options.weight_decay = -1;
  options.min_coefficient = 2;
  options.max_coefficient = 1;
  options.compress_after_step = 0;
  options.factor_min = 1.5;
  options.factor_max = 0.5;
  options.factor_threshold = 1;
  options.coefficient_beta = 1;

  const absl::Status status = Optimizer::Create(options, TestLayout()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* name :
       {"beta1", "beta2", "epsilon", "weight_decay", "max_coefficient",
        "compress_after_step", "factor_min", "factor_max", "factor_threshold",
        "coefficient_beta"}) {
    EXPECT_THAT(status.ToString(), HasSubstr(absl::StrCat(name, ": expected")));
  }
}

TEST(OptimizerTest, UnknownKindIsNamed) {
  OptimizerOptions options;
  options.kind = "adma";

  EXPECT_THAT(Optimizer::Create(options, TestLayout()).status().ToString(),
              AllOf(HasSubstr("sgd, zero_one_adam"), HasSubstr("\"adma\"")));
}

TEST(OptimizerTest, OptionsOfOtherKindsAreNotChecked) {
  OptimizerOptions options = OptionsOf("sgd");
  options.beta1 = 7;
  options.factor_min = -1;

  EXPECT_TRUE(Optimizer::Create(options, TestLayout()).ok());
}

TEST(OptimizerTest, LayoutsWithGapsOrOutOfOrderAreRefused) {
  ParameterLayout gap = TestLayout();
  gap.segments[1].offset += 1;
  ParameterLayout unsorted = TestLayout();
  std::swap(unsorted.segments[0].name, unsorted.segments[1].name);
  ParameterLayout wrong_sum = TestLayout();
  wrong_sum.num_elements += 1;

  EXPECT_THAT(Optimizer::Create({}, gap).status().ToString(),
              HasSubstr("\"t1\": expected offset 30, got 31"));
  EXPECT_THAT(Optimizer::Create({}, unsorted).status().ToString(),
              HasSubstr("sorted by name"));
  EXPECT_THAT(Optimizer::Create({}, wrong_sum).status().ToString(),
              HasSubstr("segments have 654 elements"));
}

}  // namespace
}  // namespace deltapipe
