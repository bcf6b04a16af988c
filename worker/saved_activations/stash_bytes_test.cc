// What an ActivationStash takes is never more than what it was given: over
// small and odd shapes, views and policies.
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "torch/torch.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/live_counter.h"
#include "worker/saved_activations/saved_scope.h"

namespace deltapipe {
namespace {

constexpr unsigned kSeed = 20261123;
constexpr int kGraphs = 60;

const std::vector<std::string>& Policies() {
  static const auto* const policies = new std::vector<std::string>{
      "fixed(none)",        "fixed(int(1))",
      "fixed(int(4))",      "fixed(int(8,block=256,levels=affine,scale=bf16))",
      "fixed(cast(bf16))",  "actnn(bits=2)",
      "actnn(bits=4)",      "gact(bits=4,every=2)",
      "comet(target=0.01)", "division(high=4)",
      "mesa(bits=8)",       "recompute(every=1,codec=int(8))",
      "auto(0.001)",        "auto(0.5)",
      "lean(none)",         "lean(fixed(int(2)))"};
  return *policies;
}

TEST(StashBytesTest, EveryPolicyOfAHostIsTried) {
  std::set<std::string> names = {"none", "offload"};
  for (const std::string& text : Policies()) {
    names.insert(text.substr(0, text.find('(')));
  }
  for (const SavedPolicyInfo& info : AllSavedPolicies()) {
    EXPECT_EQ(names.count(std::string(info.name)), 1u) << info.name;
  }
}

/// Extents from 1 on, odd ones among them.
int64_t Extent(std::mt19937* random, int64_t most) {
  return std::uniform_int_distribution<int64_t>(1, most)(*random);
}

/// A few operators in a random order on tensors of random sizes: matrices from
/// one element to some thousands.
class RandomGraph {
 public:
  explicit RandomGraph(unsigned seed) : random_(seed) {
    torch::manual_seed(seed);
    const int64_t most = std::vector<int64_t>{3, 17, 80}[seed % 3];
    rows_ = Extent(&random_, most);
    columns_ = Extent(&random_, most);
    weight_ = torch::randn({columns_, columns_}).set_requires_grad(true);
    scale_ = torch::randn({columns_}).set_requires_grad(true);
    input_ = torch::randn({rows_, columns_}).set_requires_grad(true);
    const int num_operators = static_cast<int>(Extent(&random_, 6));
    for (int i = 0; i < num_operators; ++i) {
      operators_.push_back(static_cast<int>(Extent(&random_, 9)));
    }
  }

  std::vector<at::Tensor> weights() const { return {weight_, scale_}; }
  const at::Tensor& input() const { return input_; }

  at::Tensor Forward() const {
    at::Tensor x = input_;
    for (const int op : operators_) x = Apply(op, x);
    SavedAsTheyAre head("head");
    return at::log_softmax(x, -1);
  }

 private:
  at::Tensor Apply(int op, const at::Tensor& x) const {
    switch (op) {
      case 1:
        return at::linear(x, weight_);
      case 2:
        return at::relu(x);
      case 3:
        return at::gelu(x);
      case 4:
        return at::layer_norm(x, {columns_}, scale_, scale_);
      case 5:
        return at::where(x > 0, x.exp(), x.sin());
      case 6:  // halves of one storage
        return rows_ < 2
                   ? x.exp()
                   : at::cat({x.narrow(0, 0, rows_ / 2).sin(),
                              x.narrow(0, rows_ / 2, rows_ - rows_ / 2).cos()});
      case 7:  // transposed and as it is
        return x.t().exp().t() * x;
      case 8:  // broadcast
        return x * x.select(0, 0).expand({rows_, columns_});
      default:
        return x.index_select(0, at::arange(rows_, at::kLong));
    }
  }

  std::mt19937 random_;
  int64_t rows_ = 1;
  int64_t columns_ = 1;
  at::Tensor weight_;
  at::Tensor scale_;
  at::Tensor input_;
  std::vector<int> operators_;
};

/// What autograd keeps by itself, each storage once.
int64_t BytesWithout(const RandomGraph& graph) {
  const std::vector<at::Tensor> weights = graph.weights();
  LiveCounter counter([&](const at::Tensor& tensor) {
    for (const at::Tensor& weight : weights) {
      if (tensor.storage().is_alias_of(weight.storage())) return true;
    }
    return false;
  });
  HookSourceScope scope(&counter);
  graph.Forward();
  return counter.bytes();
}

class StashBytesOfPolicyTest : public ::testing::TestWithParam<std::string> {};

TEST_P(StashBytesOfPolicyTest, NoGraphTakesMoreThanItsElements) {
  int num_packed = 0;
  for (unsigned i = 0; i < kGraphs; ++i) {
    SCOPED_TRACE(absl::StrCat("seed ", kSeed + i));
    const RandomGraph graph(kSeed + i);
    auto policy = MakeSavedPolicy(GetParam());
    ASSERT_TRUE(policy.ok()) << policy.status();
    ActivationStash stash(*std::move(policy), 17);
    stash.SetWeights(graph.weights());
    stash.SetInput(graph.input());
    const int64_t without = BytesWithout(graph);

    at::Tensor output;
    {
      ActivationStash::Scope scope(&stash, {1, 0, 0, i});
      output = graph.Forward();
    }
    const SavedBytes bytes = stash.TakeBytes();
    std::string list;
    for (const SavedTensorReport& report : stash.LastForward()) {
      absl::StrAppend(&list, report.name, ": ", report.stored_bytes, " of ",
                      report.raw_bytes, ", ", report.reason, "\n");
    }

    EXPECT_LE(bytes.packed + bytes.passed + bytes.metadata, bytes.unique)
        << list;
    EXPECT_LE(bytes.unique, without) << list;
    EXPECT_EQ(stash.live_bytes(), bytes.packed + bytes.passed + bytes.metadata);
    EXPECT_LE(bytes.live_peak, bytes.unique) << list;
    num_packed += bytes.packed > 0 ? 1 : 0;
    output.sum().backward();
    output = at::Tensor();
    EXPECT_EQ(stash.live_bytes(), 0);
  }
  RecordProperty("graphs_with_packed_tensors", num_packed);
}

INSTANTIATE_TEST_SUITE_P(Policies, StashBytesOfPolicyTest,
                         ::testing::ValuesIn(Policies()), [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) {
                             if (!isalnum(static_cast<unsigned char>(c))) {
                               c = '_';
                             }
                           }
                           return name;
                         });

}  // namespace
}  // namespace deltapipe
