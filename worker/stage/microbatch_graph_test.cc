#include "worker/stage/microbatch_graph.h"

#include <algorithm>
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
  void SetUp() override {
    at::manual_seed(3);
    model_ = MakeGpt(Spec(), 0, kLayers);
    names_ = model_->PartNames();
    for (NamedParameter& parameter : model_->Parameters()) {
      at::NoGradGuard no_grad;
      parameter.tensor.normal_(0, 0.1);
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
       {"fixed(int(1))", "fixed(int(2))", "fixed(int(8))", "fixed(sign)"}) {
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

TEST_F(MicrobatchGraphTest, EightInFlightInAnyOrderAndSomeDroppedAreAsAlone) {
  const unsigned seed = 20;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const auto stash = Stash("fixed(int(4,round=stochastic))");
  std::map<uint64_t, std::vector<at::Tensor>> alone;
  for (uint64_t key = 0; key < 10; ++key) {
    alone[key] = GradientsOfOne(Graph(stash.get(), key), key);
  }
  for (int step = 0; step < 100; ++step) {
    std::vector<std::pair<uint64_t, MicrobatchGraph>> in_flight;
    for (uint64_t key = 0; key < 10; ++key) {
      in_flight.emplace_back(key, Graph(stash.get(), key));
      in_flight.back().second.Forward(Tokens(key));
    }
    std::shuffle(in_flight.begin(), in_flight.end(), random);
    for (int i = 0; i < 3; ++i) in_flight.pop_back();  // dropped
    while (!in_flight.empty()) {
      in_flight.back().second.Backward(at::ones({}));
      const auto gradients = TakeGradients();
      if (step % 10 == 0) ExpectEqual(gradients, alone[in_flight.back().first]);
      in_flight.pop_back();
    }
    ASSERT_EQ(stash->live_bytes(), 0) << "step " << step;
  }
}

}  // namespace
}  // namespace deltapipe
