#include "worker/stage/microbatch_graph.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "torch/csrc/autograd/variable.h"
#include "worker/stage/models/model.h"

namespace deltapipe {
namespace {

constexpr int kLayers = 3;
constexpr int64_t kSamples = 2;
constexpr int64_t kContext = 32;
constexpr int64_t kWidth = 32;

v1::ModelSpec Spec() {
  v1::ModelSpec spec;
  spec.set_kind("gpt");
  spec.set_layers(kLayers);
  spec.set_width(kWidth);
  spec.set_heads(4);
  spec.set_context(kContext);
  return spec;
}

class MicrobatchGraphTest : public ::testing::Test {
 protected:
  void SetUp() override { UseModel(MakeGpt(Spec(), 0, kLayers)); }

  void UseModel(std::unique_ptr<PartialModel> model) {
    at::manual_seed(3);
    model_ = std::move(model);
    names_ = model_->PartNames();
    parameters_.clear();
    for (NamedParameter& parameter : model_->Parameters()) {
      at::NoGradGuard no_grad;
      parameter.tensor.normal_(parameter.init_mean, 0.1);
      parameters_.push_back(parameter.tensor);
    }
  }

  std::unique_ptr<ActivationStash> Stash(const std::string& policy) {
    auto made = MakeSavedPolicy(policy);
    EXPECT_TRUE(made.ok()) << made.status();
    auto stash = std::make_unique<ActivationStash>(std::move(*made), 17);
    stash->SetWeights(parameters_);
    return stash;
  }

  MicrobatchGraph Graph(ActivationStash* stash, uint64_t key,
                        int recompute_every = 0) {
    MicrobatchGraphOptions options;
    options.model = model_.get();
    options.part_names = &names_;
    options.stash = stash;
    options.context = {1, 0, static_cast<int>(key), key};
    options.recompute_every = recompute_every;
    options.finish = [](const at::Tensor& logits) {
      return at::cross_entropy_loss(logits.reshape({kSamples * kContext, 256}),
                                    at::arange(kSamples * kContext, at::kLong));
    };
    return MicrobatchGraph(options);
  }

  at::Tensor Tokens(uint64_t key) {
    return at::arange(kSamples * kContext, at::kLong)
        .add(static_cast<int64_t>(key) * 37)
        .remainder(256)
        .view({kSamples, kContext});
  }

  std::vector<at::Tensor> TakeGradients() {
    std::vector<at::Tensor> gradients;
    for (at::Tensor& parameter : parameters_) {
      gradients.push_back(parameter.grad().clone());
      parameter.mutable_grad() = at::Tensor();
    }
    return gradients;
  }

  std::vector<at::Tensor> GradientsOfOne(MicrobatchGraph graph, uint64_t key,
                                         float* loss = nullptr) {
    const at::Tensor result = graph.Forward(Tokens(key));
    if (loss != nullptr) *loss = result.item<float>();
    graph.Backward(at::ones({}));
    return TakeGradients();
  }

  static void ExpectEqual(const std::vector<at::Tensor>& a,
                          const std::vector<at::Tensor>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_TRUE(at::equal(a[i], b[i])) << "parameter " << i;
    }
  }

  std::unique_ptr<PartialModel> model_;
  std::vector<std::string> names_;
  std::vector<at::Tensor> parameters_;
};

TEST_F(MicrobatchGraphTest, LossIsThatOfUncompressedTensorsWhateverTheBits) {
  float plain = 0;
  GradientsOfOne(Graph(nullptr, 5), 5, &plain);
  for (const char* policy :
       {"fixed(int(1))", "fixed(int(2))", "fixed(int(8))", "fixed(sign)",
        "lean(fixed(int(1)),derivative=1)"}) {
    const auto stash = Stash(policy);
    float loss = 0;

    GradientsOfOne(Graph(stash.get(), 5), 5, &loss);

    EXPECT_EQ(loss, plain) << policy;
    EXPECT_EQ(stash->live_bytes(), 0);
  }
}

TEST_F(MicrobatchGraphTest, RecomputedGroupsHaveTheSameGradients) {
  const auto expected = GradientsOfOne(Graph(nullptr, 5), 5);
  for (const int every : {1, 2, 3, 100}) {
    SCOPED_TRACE(every);
    ExpectEqual(GradientsOfOne(Graph(nullptr, 5, every), 5), expected);
    const auto stash = Stash("recompute(every=1)");
    ExpectEqual(GradientsOfOne(Graph(stash.get(), 5, every), 5), expected);
  }
}

TEST_F(MicrobatchGraphTest, WhatIsComputedAgainCountsInThePeakForItsTime) {
  const auto all = Stash("fixed(int(8))");
  GradientsOfOne(Graph(all.get(), 5), 5);
  const auto unique = static_cast<double>(all->TakeBytes().unique);

  int64_t peak_before = 0;
  for (const int every : {1, 2, 100}) {
    SCOPED_TRACE(every);
    const auto stash = Stash("recompute(every=1)");
    MicrobatchGraph graph = Graph(stash.get(), 5, every);
    graph.Forward(Tokens(5));
    const SavedBytes forward = stash->TakeBytes();
    const int64_t kept = stash->live_bytes();
    EXPECT_EQ(forward.recomputed_peak, 0);

    graph.Backward(at::ones({}));

    const SavedBytes backward = stash->TakeBytes();
    EXPECT_EQ(backward.unique, 0);  // nothing is kept for later
    EXPECT_GT(backward.recomputed_peak, peak_before);
    // The last group is computed again while all inputs are kept.
    EXPECT_GT(backward.live_peak, kept);
    EXPECT_LE(backward.live_peak, kept + backward.recomputed_peak);
    EXPECT_EQ(stash->live_bytes(), 0);
    peak_before = backward.recomputed_peak;
  }
  // All layers at once: what is saved without a policy, but for the head.
  EXPECT_GT(static_cast<double>(peak_before), 0.5 * unique);
  EXPECT_LT(static_cast<double>(peak_before), 1.01 * unique);
}

TEST_F(MicrobatchGraphTest, RecomputingKeepsTheInputsOfGroupsAlone) {
  const auto stash = Stash("recompute(every=1)");
  MicrobatchGraph graph = Graph(stash.get(), 5, 1);

  graph.Forward(Tokens(5));

  const SavedBytes bytes = stash->TakeBytes();
  // An activation per layer; the head's norm and its matrix, logits' softmax.
  const int64_t activation = kSamples * kContext * kWidth * 4;
  EXPECT_LE(stash->live_bytes() - bytes.metadata,
            (kLayers + 2) * activation + kSamples * kContext * (256 + 8) * 4);
}

// As the first of eight stages runs them under 1F1B: eight forward passes, then
// a backward pass and a forward pass in turns, then what is left. Of those in
// flight any may come next, and three in ten never do. Policies whose payloads
// depend on what came before (running ranges) see the same forward passes.
TEST_F(MicrobatchGraphTest, OneForwardOneBackwardInAnyOrderIsAsOneByOne) {
  constexpr uint64_t kMicrobatches = 30;
  constexpr size_t kInFlight = 8;
  const unsigned seed = 20;
  SCOPED_TRACE(seed);
  for (const char* policy :
       {"lean(fixed(int(4,round=stochastic)))", "fixed(int(2))",
        "actnn(bits=2)", "mesa(bits=8)", "recompute(every=1,codec=int(8))"}) {
    SCOPED_TRACE(policy);
    std::mt19937 random(seed);
    auto stash = Stash(policy);
    const int every = stash->policy()->recompute_every();
    std::vector<std::vector<at::Tensor>> one_by_one;
    for (uint64_t key = 0; key < kMicrobatches; ++key) {
      one_by_one.push_back(GradientsOfOne(Graph(stash.get(), key, every), key));
    }
    stash = Stash(policy);
    std::map<uint64_t, MicrobatchGraph> in_flight;
    std::vector<bool> is_dropped(kMicrobatches);
    for (uint64_t key = 0; key < kMicrobatches; ++key) {
      is_dropped[key] = key % 10 < 3;
    }
    std::shuffle(is_dropped.begin(), is_dropped.end(), random);
    size_t most_in_flight = 0;
    int num_finished = 0;
    int num_out_of_order = 0;
    const auto finish_one = [&] {
      auto one = in_flight.begin();
      std::advance(one, random() % in_flight.size());
      num_out_of_order += one != in_flight.begin() ? 1 : 0;
      if (!is_dropped[one->first]) {
        one->second.Backward(at::ones({}));
        ExpectEqual(TakeGradients(), one_by_one[one->first]);
        ++num_finished;
      }
      in_flight.erase(one);
    };

    for (uint64_t key = 0; key < kMicrobatches; ++key) {
      if (in_flight.size() == kInFlight) finish_one();
      in_flight.emplace(key, Graph(stash.get(), key, every))
          .first->second.Forward(Tokens(key));
      most_in_flight = std::max(most_in_flight, in_flight.size());
    }
    while (!in_flight.empty()) finish_one();

    EXPECT_EQ(most_in_flight, kInFlight);
    EXPECT_EQ(num_finished, 21);  // and 9 dropped
    EXPECT_GT(num_out_of_order, 10);
    EXPECT_EQ(stash->live_bytes(), 0);
  }
}

// Ten in flight, finished out of order, three of them dropped: nothing is left,
// step for step, and the gradients stay those of the first step.
TEST_F(MicrobatchGraphTest, AThousandStepsLeaveNothing) {
  v1::ModelSpec spec = Spec();
  spec.set_layers(1);
  UseModel(MakeGpt(spec, 0, 1));
  const unsigned seed = 21;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const auto stash = Stash("lean(fixed(int(4)))");
  std::vector<at::Tensor> first;
  for (int step = 0; step < 1000; ++step) {
    std::vector<MicrobatchGraph> in_flight;
    std::vector<size_t> order;
    for (uint64_t key = 0; key < 10; ++key) {
      order.push_back(in_flight.size());
      in_flight.push_back(Graph(stash.get(), key));
      in_flight.back().Forward(Tokens(key));
    }
    ASSERT_GT(stash->live_bytes(), 0);
    // Sums do not depend on the order beyond their rounding.
    std::shuffle(order.begin(), order.begin() + 7, random);
    for (size_t i = 0; i < 7; ++i) {
      in_flight[order[i]].Backward(at::ones({}));
    }
    const auto gradients = TakeGradients();
    if (first.empty()) first = gradients;
    for (size_t i = 0; i < gradients.size() && step % 100 == 0; ++i) {
      EXPECT_TRUE(at::allclose(gradients[i], first[i], 1e-3, 1e-5)) << i;
    }
    in_flight.clear();
    ASSERT_EQ(stash->live_bytes(), 0) << "step " << step;
  }
}

/// Trains on a few sentences with Adam; returns the mean loss of the last
/// steps.
double TrainedLoss(ActivationStash* stash, PartialModel* model,
                   const std::vector<std::string>& names) {
  constexpr int kSteps = 600;
  constexpr double kRate = 1e-2;
  constexpr int kLast = 20;
  at::manual_seed(4);
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> means;
  std::vector<at::Tensor> squares;
  for (NamedParameter& parameter : model->Parameters()) {
    at::NoGradGuard no_grad;
    parameter.tensor.normal_(parameter.init_mean, parameter.init_deviation);
    weights.push_back(parameter.tensor);
    means.push_back(at::zeros_like(parameter.tensor));
    squares.push_back(at::zeros_like(parameter.tensor));
  }
  if (stash != nullptr) stash->SetWeights(weights);
  const at::Tensor text = at::randint(0, 64, {8, kContext + 1}, at::kLong);
  double sum = 0;
  for (int step = 1; step <= kSteps; ++step) {
    MicrobatchGraphOptions options;
    options.model = model;
    options.part_names = &names;
    options.stash = stash;
    options.context.step = step;
    options.finish = [&](const at::Tensor& logits) {
      return at::cross_entropy_loss(
          logits.reshape({8 * kContext, 256}),
          text.narrow(1, 1, kContext).reshape({8 * kContext}));
    };
    MicrobatchGraph graph(options);
    const double loss =
        graph.Forward(text.narrow(1, 0, kContext)).item<double>();
    if (step > kSteps - kLast) sum += loss;
    graph.Backward(at::ones({}));
    at::NoGradGuard no_grad;
    for (size_t i = 0; i < weights.size(); ++i) {
      const at::Tensor gradient = weights[i].grad();
      means[i].mul_(0.9).add_(gradient, 0.1);
      squares[i].mul_(0.999).addcmul_(gradient, gradient, 0.001);
      const at::Tensor scale =
          squares[i].div(1 - std::pow(0.999, step)).sqrt_().add_(1e-8);
      weights[i].addcdiv_(means[i], scale, -kRate / (1 - std::pow(0.9, step)));
      weights[i].mutable_grad() = at::Tensor();
    }
  }
  return sum / kLast;
}

// What the head saves is a few per cent of the bytes. At 4 bits it ruins the
// training (the loss ends 200 times as high) that all others at 4 bits leave as
// it is.
TEST_F(MicrobatchGraphTest, FourBitsWithTheHeadRuinTrainingWithoutItTheyDoNot) {
  const char kFourBits[] =
      "fixed(int(4,block=256,round=stochastic,levels=affine,scale=bf16))";
  const double plain = TrainedLoss(nullptr, model_.get(), names_);
  const auto stash = Stash(kFourBits);
  const double packed = TrainedLoss(stash.get(), model_.get(), names_);
  const auto with_head = Stash(kFourBits);
  with_head->PackHeadForTest();

  const double ruined = TrainedLoss(with_head.get(), model_.get(), names_);

  EXPECT_LT(plain, 0.1);
  EXPECT_LT(packed, 1.05 * plain + 0.01) << "without " << plain;
  EXPECT_GT(ruined, 20 * plain) << "without " << plain;
}

}  // namespace
}  // namespace deltapipe
