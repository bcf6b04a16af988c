// Steps in which replicas leave out work: what is averaged, what is told, and
// that a step that is done again does the same.
#include <chrono>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"
#include "worker/data/slot_cursors.h"
#include "worker/optim/optimizer.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::Lt;

using Executed = std::vector<std::vector<int>>;  // by step, then replica

constexpr int kPlanned = 4;  // micro-batches of two replicas of 16 samples by 2
constexpr uint32_t kSeed = 20261;

std::vector<std::string> Dropping(const std::vector<std::string>& more) {
  std::vector<std::string> overrides = {"stragglers.policy=drop",
                                        "stragglers.max_drop_rate=1"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

/// A job that may leave out work, told what to do in each step.
std::unique_ptr<Job> TheJob(int stages, const std::vector<std::string>& more,
                            const Executed& executed) {
  auto job = std::make_unique<Job>(stages, 2, Dropping(more));
  job->assignment().mutable_tuning()->set_straggler_policy("drop");
  for (size_t step = 0; step < executed.size(); ++step) {
    v1::ExecutedStep* told = job->assignment().add_executed();
    told->set_step(static_cast<int64_t>(step));
    *told->mutable_microbatches() = {executed[step].begin(),
                                     executed[step].end()};
  }
  return job;
}

Executed RandomWork(int num_steps, int least) {
  std::mt19937 random(kSeed);
  Executed executed;
  for (int step = 0; step < num_steps; ++step) {
    std::vector<int> work = {
        least + static_cast<int>(random() % (kPlanned + 1 - least)),
        least + static_cast<int>(random() % (kPlanned + 1 - least))};
    if (work[0] + work[1] == 0) work[1] = 1;
    executed.push_back(work);
  }
  return executed;
}

/// The weights of the whole model after each micro-batch that was done was
/// averaged, in one place, with an optimizer that knows nothing of replicas.
class Reference {
 public:
  Reference(const v1::JobSpec& spec, const std::string& kind, double rate)
      : spec_(spec), rate_(rate), stage_(spec, 0, spec.model().layers()) {
    BatchSourceOptions data;
    data.path = spec.data().path();
    data.validation = spec.data().validation();
    data.context = spec.model().context();
    data.microbatch = spec.train().microbatch();
    data.num_slots = 2 * kPlanned;
    data.seed = spec.seed();
    source_ = *BatchSource::Create(data);
    OptimizerOptions options;
    options.kind = kind;
    options.compress_after_step = 8;
    options.weight_decay = spec.train().optimizer().weight_decay();
    optimizer_ = *Optimizer::Create(options, stage_.parameters());
  }

  /// Returns the mean loss of what was done.
  double Step(int64_t step, const std::vector<int>& executed) {
    const int total = std::accumulate(executed.begin(), executed.end(), 0);
    double loss = 0;
    for (int replica = 0; replica < 2; ++replica) {
      for (int mb = 0; mb < executed[static_cast<size_t>(replica)]; ++mb) {
        const int64_t slot = cursors_.Slot(step, replica, mb);
        const Microbatch batch =
            source_->Train(cursors_.Position(step, slot), slot);
        StageInput input;
        input.num_samples = static_cast<int64_t>(batch.samples.size());
        input.tokens = batch.tokens;
        input.targets = batch.targets;
        input.loss_scale = 1.0f / static_cast<float>(total);
        StageOutput output;
        EXPECT_TRUE(stage_.Forward(input, &output).ok());
        EXPECT_TRUE(stage_.Backward(0, TensorRef()).ok());
        loss += output.loss / total;
      }
    }
    cursors_.Advance(step, executed);
    optimizer_->Prepare(step, rate_, stage_.weights(), stage_.gradients());
    EXPECT_TRUE(optimizer_->Apply(step, rate_, 1.0, stage_.weights()).ok());
    EXPECT_TRUE(stage_.WeightsChanged().ok());
    return loss;
  }
  /// Of the parameter in the whole model.
  std::vector<float> Weights(const std::string& name) {
    for (const ParameterSegment& segment : stage_.parameters().segments) {
      if (segment.name != name) continue;
      const auto begin = stage_.weights().begin() + segment.offset;
      return {begin, begin + segment.num_elements};
    }
    ADD_FAILURE() << name;
    return {};
  }

 private:
  const v1::JobSpec& spec_;
  const double rate_;
  ElementwiseStage stage_;
  std::unique_ptr<BatchSource> source_;
  std::unique_ptr<Optimizer> optimizer_;
  SlotCursors cursors_{SlotCursorOptions{2, kPlanned, true, false}};
};

struct Case {
  std::string kind;
  std::string of_reference;
  int stages;
  std::vector<std::string> overrides;
};

class SubsetTest : public ::testing::TestWithParam<std::tuple<Case, bool>> {};

// For any number of micro-batches on each replica, none on one of them
// included.
TEST_P(SubsetTest, TheUpdateIsTheMeanOverWhatWasDone) {
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  const auto& [test, is_over_tcp] = GetParam();
  std::vector<std::string> overrides = test.overrides;
  overrides.push_back("train.clip_norm=0");
  overrides.push_back("train.optimizer.kind=" + test.kind);
  const Executed executed = RandomWork(20, /*least=*/0);
  const auto job = TheJob(test.stages, overrides, executed);
  job->use_tcp = is_over_tcp;
  const v1::JobSpec spec = job->assignment().spec();
  const v1::Plan plan = job->assignment().plan();

  const RunResult result = job->Run();

  for (const auto& [rank, done] : result.done) {
    ASSERT_EQ(done.error_message(), "") << "rank " << rank;
  }
  Reference reference(spec, test.of_reference,
                      spec.train().optimizer().learning_rate());
  for (int64_t step = 0; step < 20; ++step) {
    const std::vector<int>& work = executed[static_cast<size_t>(step)];
    const double loss = reference.Step(step, work);
    double told = 0;
    double weight = 0;
    for (int replica = 0; replica < 2; ++replica) {
      const int rank = 2 * (test.stages - 1) + replica;
      const v1::StepReport& report =
          result.reports.at(rank)[static_cast<size_t>(step)];
      ASSERT_EQ(report.microbatches_size(), 1);
      EXPECT_EQ(report.microbatches(0), work[static_cast<size_t>(replica)]);
      EXPECT_EQ(report.dropped_samples(),
                2 * (kPlanned - work[static_cast<size_t>(replica)]));
      EXPECT_EQ(report.tokens(), 8 * 2 * work[static_cast<size_t>(replica)]);
      if (!report.has_loss()) continue;
      told += report.loss() * report.microbatches(0);
      weight += report.microbatches(0);
    }
    EXPECT_NEAR(told / weight, loss, 2e-5 * loss) << "step " << step;
  }
  for (int rank = 0; rank < 2 * test.stages; ++rank) {
    const v1::StagePlan& stage = plan.stages(rank / 2);
    const ElementwiseStage piece(spec, stage.first_layer(), stage.end_layer());
    for (const ParameterSegment& segment : piece.parameters().segments) {
      const std::vector<float> expected = reference.Weights(segment.name);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_NEAR(result.weights.at(rank)[size_t(segment.offset) + i],
                    expected[i], 2e-5)
            << "rank " << rank << ", " << segment.name << " " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Optimizers, SubsetTest,
    ::testing::Combine(
        ::testing::Values(
            Case{"sgd", "sgd", 1, {}}, Case{"sgd", "sgd", 4, {}},
            Case{"adamw", "adamw", 2, {}},
            Case{"adamw", "adamw", 4, {"train.optimizer.shard_state=on"}},
            Case{"lamb", "lamb", 2, {}},
            Case{"adamw", "adamw", 3, {"model.tied=on"}},
            Case{"lamb", "lamb", 4, {"model.tied=on"}},
            // Of momenta, too.
            Case{"onebit_lamb",
                 "onebit_lamb",
                 3,
                 {"model.tied=on", "compression.gradients=identity",
                  "train.optimizer.compress_after_step=8"}},
            Case{"onebit_lamb",
                 "onebit_lamb",
                 2,
                 {"compression.gradients=identity",
                  "train.optimizer.compress_after_step=8"}},
            Case{"onebit_adam",
                 "onebit_adam",
                 2,
                 {"compression.gradients=identity",
                  "train.optimizer.compress_after_step=8"}}),
        ::testing::Bool()),
    [](const auto& info) {
      const Case& test = std::get<0>(info.param);
      return absl::StrCat(test.kind, "_", test.stages,
                          std::get<1>(info.param) ? "_tcp" : "");
    });

std::vector<std::string> Compressed() {
  return {"train.steps=30",
          "train.optimizer.kind=onebit_lamb",
          "train.optimizer.learning_rate=0.01",
          "train.optimizer.compress_after_step=8",
          "compression.activations=delta(int(4),first=int(8))",
          "compression.activation_gradients=int(8,round=stochastic)",
          "compression.gradients=sign(block=0)"};
}

// Replica 1 is made slow, so that its steps are cut by the clock, differently
// in every run; told what was done, another run does the same to the bit.
TEST(StragglersTest, StepsThatAreDoneAgainDoTheSame) {
  std::vector<std::string> overrides = Compressed();
  overrides.push_back("stragglers.tau=6ms");
  const auto slow = TheJob(2, overrides, {});
  slow->before_forward = [](int rank, ElementwiseStage*, int64_t step, int mb) {
    if (rank == 1 && step % 2 == 0) {
      Clock* const clock = Clock::Real();
      clock->SleepUntil(clock->Now() + std::chrono::milliseconds(4), nullptr);
    }
    return absl::OkStatus();
  };
  const RunResult first = slow->Run();
  Executed executed;
  int num_cut = 0;
  for (size_t step = 0; step < 30; ++step) {
    executed.push_back({first.reports.at(0)[step].microbatches(0),
                        first.reports.at(1)[step].microbatches(0)});
    num_cut += executed.back()[1] < kPlanned ? 1 : 0;
  }
  ASSERT_GE(num_cut, 10);

  const RunResult again = TheJob(2, overrides, executed)->Run();

  for (const auto& [rank, done] : again.done) {
    EXPECT_EQ(done.error_message(), "") << "rank " << rank;
  }
  EXPECT_EQ(again.losses, first.losses);
  EXPECT_EQ(again.weights, first.weights);
}

TEST(StragglersTest, TheCapHoldsWhateverTheClockSays) {
  // Every micro-batch but the first comes too late, on both replicas.
  std::vector<std::string> overrides = {"train.steps=100",
                                        "stragglers.tau=1us"};
  const auto job = TheJob(1, overrides, {});
  job->assignment().mutable_spec()->mutable_stragglers()->set_max_drop_rate(
      0.1);

  const RunResult result = job->Run();

  int done = 0;
  for (const int rank : {0, 1}) {
    for (const v1::StepReport& report : result.reports.at(rank)) {
      EXPECT_GE(report.microbatches(0), 1);
      done += report.microbatches(0);
    }
  }
  const int planned = 2 * kPlanned * 100;
  EXPECT_GE(done, 0.9 * planned);
  EXPECT_LE(done, 0.92 * planned) << "the budget is used";
}

// With a checkpoint in the middle, and what was left out coming again.
TEST(StragglersTest, WhatComesAgainIsRememberedByCheckpoints) {
  std::vector<std::string> overrides = Compressed();
  overrides.push_back("stragglers.requeue=on");
  overrides.push_back("checkpoint.every=5");
  const Executed executed = RandomWork(30, /*least=*/1);
  const std::string folder = ::testing::TempDir() + "/stragglers_checkpoints";
  std::filesystem::remove_all(folder);  // of an earlier run
  const auto make = [&](const std::string& subfolder) {
    auto job = TheJob(2, overrides, executed);
    job->takes_checkpoints = true;
    job->assignment().set_checkpoint_folder(folder + "/" + subfolder);
    return job;
  };
  const RunResult whole = make("whole")->Run();
  const auto broken = make("broken");
  broken->after_step = [](int rank, int64_t step, Training* training) {
    if (rank == 1 && step == 17) {
      training->Cancel(absl::UnavailableError("worker-1 has left"));
    }
  };
  broken->Run();

  const auto resumed = make("broken");
  resumed->assignment().set_generation(4);
  resumed->assignment().set_resume(true);
  const RunResult rest = resumed->Run();

  for (const auto& [rank, done] : rest.done) {
    EXPECT_EQ(done.error_message(), "") << "rank " << rank;
  }
  const int64_t from = rest.ready.at(0).restored_step();
  EXPECT_TRUE(from == 10 || from == 15) << from;
  for (int64_t step = from; step < 30; ++step) {
    EXPECT_EQ(rest.Mean(step), whole.Mean(step)) << "step " << step;
  }
  EXPECT_EQ(rest.weights, whole.weights);
  int64_t dropped = 0;
  for (int64_t step = 0; step < from; ++step) {
    const std::vector<int>& work = executed[static_cast<size_t>(step)];
    dropped += 2 * (2 * kPlanned - work[0] - work[1]);
  }
  EXPECT_EQ(rest.ready.at(0).restored_samples_dropped(), dropped);
}

TEST(CompressionSwitchTest, AllWorkersBeginToCompressInTheSameStep) {
  const RunResult result =
      Job(2, 2,
          {"train.steps=900", "train.optimizer.kind=onebit_adam",
           "train.optimizer.learning_rate=1e-7", "train.optimizer.beta2=0.99",
           "train.optimizer.compress_after_step=auto",
           "compression.gradients=auto"})
          .Run();

  int64_t begin = -1;
  for (const auto& [rank, done] : result.done) {
    EXPECT_EQ(done.error_message(), "") << "rank " << rank;
    int64_t first = 0;
    for (const v1::StepReport& report : result.reports.at(rank)) {
      if (!report.compressed()) ++first;
    }
    if (begin < 0) begin = first;
    EXPECT_EQ(first, begin) << "rank " << rank;
  }
  EXPECT_GE(begin, 200) << "two windows";
  EXPECT_LT(begin, 900);
}

// Gradients that grow ten-fold at step 150: their variance is another than the
// frozen one.
TEST(CompressionSwitchTest, AllWorkersGoBackInTheSameStepAndCompressAgain) {
  Job job(2, 2,
          {"train.steps=400", "train.optimizer.kind=onebit_adam",
           "train.optimizer.learning_rate=1e-7", "train.optimizer.beta2=0.95",
           "train.optimizer.compress_after_step=auto", "train.clip_norm=0",
           "compression.gradients=auto"});
  job.before_forward = [](int, ElementwiseStage* stage, int64_t step, int) {
    for (float& value : stage->gradients()) value += step < 150 ? 0.1f : 1.0f;
    return absl::OkStatus();
  };
  const RunResult result = job.Run();

  ExpectSuccess(result);
  std::vector<std::vector<int64_t>> turns;  // by rank: before which step
  for (const auto& [rank, reports] : result.reports) {
    turns.emplace_back();
    for (size_t step = 1; step < reports.size(); ++step) {
      if (reports[step].compressed() != reports[step - 1].compressed()) {
        turns.back().push_back(static_cast<int64_t>(step));
      }
    }
  }
  EXPECT_THAT(turns,
              Each(ElementsAre(AllOf(Gt(50), Lt(150)), AllOf(Gt(170), Lt(200)),
                               AllOf(Gt(220), Lt(400)))));
  EXPECT_THAT(turns, Each(turns[0]));
}

}  // namespace
}  // namespace deltapipe
