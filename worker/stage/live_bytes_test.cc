// Live bytes as reported are those of LibTorch's allocator.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ATen/ATen.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "c10/core/Allocator.h"
#include "c10/core/CPUAllocator.h"
#include "gtest/gtest.h"
#include "worker/stage/microbatch_graph.h"
#include "worker/stage/models/model.h"

namespace deltapipe {
namespace {

/// Counts what the CPU allocator of LibTorch has given out.
class CountingAllocator : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* base) { base_ = base; }
  c10::DataPtr allocate(size_t bytes) override {
    void* const data = base_->raw_allocate(bytes);
    MutexLock lock(&mutex_);
    sizes_[data] = static_cast<int64_t>(bytes);
    live_ += static_cast<int64_t>(bytes);
    // Callers of raw_allocate want the memory for its own context.
    return {data, data, &Free, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    base_->copy_data(to, from, bytes);
  }
  static int64_t live() {
    MutexLock lock(&mutex_);
    return live_;
  }

 private:
  static void Free(void* data) {
    {
      MutexLock lock(&mutex_);
      live_ -= sizes_[data];
      sizes_.erase(data);
    }
    base_->raw_deallocate(data);
  }
  static inline c10::Allocator* base_ = nullptr;
  static inline Mutex mutex_;
  static inline std::map<void*, int64_t> sizes_;
  static inline int64_t live_ = 0;
};

/// A policy as after the first step's measures.
void PlanBy(GradientMeter* meter, SavedPolicy* policy) {
  std::vector<SavedMeasurement> measurements = meter->Take();
  for (SavedMeasurement& measurement : measurements) {
    measurement.sensitivity = measurement.range_squares;
    measurement.parameter_gradient_mean_abs = 1e-3;
  }
  const absl::Status status = policy->Plan(1, measurements);
  EXPECT_TRUE(status.ok()) << status;
}

v1::ModelSpec Model(const std::string& kind) {
  v1::ModelSpec spec;
  spec.set_kind(kind);
  spec.set_layers(3);
  spec.set_width(kind == "resnet" ? 8 : 32);
  spec.set_heads(4);
  spec.set_context(32);
  spec.set_norm("batch");
  return spec;
}

/// A model, its policy as planned after one pass, and one more pass.
class OnePass {
 public:
  OnePass(const std::string& kind, const std::string& policy)
      : model_(MakeModel(Model(kind), 0, 3)), names_(model_->PartNames()) {
    at::manual_seed(3);
    std::vector<at::Tensor> weights;
    for (NamedParameter& parameter : model_->Parameters()) {
      at::NoGradGuard no_grad;
      parameter.tensor.normal_(parameter.init_mean, 0.1);
      weights.push_back(parameter.tensor);
    }
    auto made = MakeSavedPolicy(policy);
    EXPECT_TRUE(made.ok()) << made.status();
    stash_ = std::make_unique<ActivationStash>(*std::move(made), 17);
    stash_->SetWeights(weights);
    input_ = kind == "resnet" ? at::randint(0, 256, {2, 28, 28}, at::kLong)
                              : at::randint(0, 256, {2, 32}, at::kLong);
    GradientMeter meter;
    MicrobatchGraph graph = Graph(&meter);
    graph.Forward(input_);
    graph.Backward(at::ones({}));
    PlanBy(&meter, stash_->policy());
    stash_->TakeBytes();
  }

  MicrobatchGraph Graph(GradientMeter* meter) {
    MicrobatchGraphOptions options;
    options.model = model_.get();
    options.part_names = &names_;
    options.stash = stash_.get();
    options.context = {1, 0, 5, 5};
    options.meter = meter;
    options.recompute_every =
        meter == nullptr ? stash_->policy()->recompute_every() : 0;
    options.finish = [](const at::Tensor& logits) {
      const at::Tensor rows = logits.reshape({-1, logits.size(-1)});
      return at::cross_entropy_loss(
          rows, at::arange(rows.size(0), at::kLong).remainder(10));
    };
    return MicrobatchGraph(options);
  }
  const at::Tensor& input() const { return input_; }
  ActivationStash* stash() { return stash_.get(); }

 private:
  const std::unique_ptr<PartialModel> model_;
  const std::vector<std::string> names_;
  std::unique_ptr<ActivationStash> stash_;
  at::Tensor input_;
};

using KindAndPolicy = std::tuple<std::string, std::string>;

class LiveBytesTest : public ::testing::TestWithParam<KindAndPolicy> {
 protected:
  void SetUp() override { c10::SetCPUAllocator(counting_, /*priority=*/100); }
  void TearDown() override { c10::SetCPUAllocator(before_, /*priority=*/100); }

  static inline c10::Allocator* const before_ = c10::GetCPUAllocator();
  // Memory that it gave out may outlive the tests.
  static inline CountingAllocator* const counting_ =
      new CountingAllocator(before_);
};

TEST_P(LiveBytesTest, AreThoseOfTheAllocatorWithinOnePercent) {
  OnePass pass(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const int64_t at_first = CountingAllocator::live();
  {
    MicrobatchGraph graph = pass.Graph(nullptr);
    graph.Forward(pass.input());

    const int64_t held = CountingAllocator::live() - at_first;
    const int64_t reported =
        pass.stash()->live_bytes() - pass.stash()->TakeBytes().metadata;

    EXPECT_NEAR(static_cast<double>(reported), static_cast<double>(held),
                0.01 * static_cast<double>(held));
  }
  EXPECT_EQ(CountingAllocator::live(), at_first);
  EXPECT_EQ(pass.stash()->live_bytes(), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Policies, LiveBytesTest,
    ::testing::Combine(
        ::testing::Values("gpt", "resnet"),
        ::testing::Values("fixed(int(2))", "fixed(int(4))", "fixed(int(8))",
                          "recompute(every=1)", "actnn(bits=2)", "lean(none)",
                          "lean(fixed(int(4)))", "gact(bits=4,every=2)",
                          "comet(target=0.01)", "division(high=4)",
                          "mesa(bits=8)", "auto(0.5)", "auto(2)")),
    [](const auto& info) {
      std::string name =
          absl::StrCat(std::get<0>(info.param), "_", std::get<1>(info.param));
      for (char& c : name) {
        if (!isalnum(static_cast<unsigned char>(c))) c = '_';
      }
      return name;
    });

}  // namespace
}  // namespace deltapipe
