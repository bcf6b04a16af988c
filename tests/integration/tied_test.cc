// model.tied in the engine as a whole: what the first and the last stage both
// hold is one tensor, however the model is cut and copied.
//
// ElementwiseStage multiplies by the same gains, the last ones in the buffers
// of both stages, in its first and its last layer.
#include <gmock/gmock.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checkpoint/manifest.h"
#include "base/safetensors.h"
#include "base/temporary_folder.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Strings = std::vector<std::string>;

constexpr size_t kWidth = 8;

Strings Tied(Strings overrides) {
  overrides.push_back("model.tied=on");
  return overrides;
}

std::vector<float> TiedPartOf(absl::Span<const float> weights) {
  const absl::Span<const float> tied = weights.last(kWidth);
  return {tied.begin(), tied.end()};
}

/// What each owner held after each step.
class TiedLog {
 public:
  explicit TiedLog(int stages, int replicas)
      : replicas_(replicas), first_of_last_((stages - 1) * replicas) {}
  void Attach(Job* job) {
    job->after_step = [this](int rank, int64_t step, Training* training) {
      if (rank >= replicas_ && rank < first_of_last_) return;
      std::vector<float> tied = TiedPartOf(training->weights());
      MutexLock lock(&mutex_);
      after_[step][rank] = std::move(tied);
    };
  }
  /// `steps` of them, in each of which the weights changed unless it is
  /// `skipped`.
  void ExpectEqual(size_t steps, int64_t skipped = -1) {
    MutexLock lock(&mutex_);
    ASSERT_EQ(after_.size(), steps);
    std::vector<float> before;
    for (const auto& [step, by_rank] : after_) {
      ASSERT_EQ(by_rank.size(), 2 * static_cast<size_t>(replicas_));
      for (const auto& [rank, tied] : by_rank) {
        EXPECT_EQ(tied, by_rank.begin()->second)
            << "rank " << rank << ", step " << step;
      }
      EXPECT_EQ(by_rank.begin()->second == before, step == skipped)
          << "step " << step;
      before = by_rank.begin()->second;
    }
  }

 private:
  const int replicas_;
  const int first_of_last_;
  Mutex mutex_;
  std::map<int64_t, std::map<int, std::vector<float>>> after_;
};

using Shape = std::tuple<int, int>;  // stages, replicas

class TiedSplitTest : public ::testing::TestWithParam<Shape> {};

TEST_P(TiedSplitTest, EqualsWhole) {
  const auto [stages, replicas] = GetParam();
  for (const char* optimizer : {"sgd", "adamw", "lamb"}) {
    const Strings overrides =
        Tied({absl::StrCat("train.optimizer.kind=", optimizer),
              "train.clip_norm=0.2"});
    TiedLog log(stages, replicas);

    const RunResult whole = Job(1, 1, overrides).Run();
    Job job(stages, replicas, overrides);
    log.Attach(&job);
    const RunResult split = job.Run();

    ExpectLossesOfTheWhole(split, whole, optimizer);
    ExpectNormsOfTheWhole(split, whole, /*clip_norm=*/0.2, optimizer);
    log.ExpectEqual(20);
  }
}

INSTANTIATE_TEST_SUITE_P(Partitions, TiedSplitTest,
                         ::testing::Combine(::testing::Values(2, 3, 4),
                                            ::testing::Values(1, 2)),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param), "x",
                                               std::get<1>(info.param));
                         });

TEST(TiedTest, IsAnotherModelThanTwoTensors) {
  const RunResult tied = Job(1, 1, Tied({})).Run();
  const RunResult untied = Job(1, 1, {}).Run();

  ExpectSuccess(tied);
  EXPECT_EQ(tied.weights.at(0).size() + kWidth, untied.weights.at(0).size());
  EXPECT_NE(tied.losses, untied.losses);
}

struct Setting {
  const char* name;
  int stages;
  int replicas;
  Strings overrides;
};

const std::vector<Setting>& Settings() {
  static const auto* const settings = new std::vector<Setting>{
      {"OneBitLamb",
       2,
       2,
       {"train.optimizer.kind=onebit_lamb",
        "train.optimizer.learning_rate=0.01",
        "train.optimizer.compress_after_step=7", "compression.gradients=auto",
        "compression.activations=delta(int(4),first=int(8))",
        "compression.activation_gradients=int(8,round=stochastic)"}},
      // Alone in its own part, compressed among the owners.
      {"OneBitLambOneReplica",
       4,
       1,
       {"train.optimizer.kind=onebit_lamb",
        "train.optimizer.learning_rate=0.01",
        "train.optimizer.compress_after_step=7", "compression.gradients=auto"}},
      {"OneBitAdam",
       3,
       2,
       {"train.optimizer.kind=onebit_adam",
        "train.optimizer.learning_rate=0.005",
        "train.optimizer.compress_after_step=7", "compression.gradients=auto"}},
      {"ByDecision",
       2,
       2,
       {"train.optimizer.kind=onebit_lamb", "train.optimizer.beta2=0.8",
        "train.optimizer.compress_after_step=auto",
        "compression.gradients=auto"}},
      {"Nodes",
       2,
       4,
       {"train.optimizer.kind=onebit_lamb", "parallel.nodes=2",
        "train.optimizer.compress_after_step=7", "compression.gradients=auto"}},
      {"RoundedInShares",
       4,
       2,
       {"train.optimizer.kind=adamw", "train.optimizer.shard_state=on",
        "compression.gradients=cast(bf16)"}},
      {"WithoutFlush",
       2,
       2,
       {"parallel.schedule=2bw", "train.optimizer.kind=onebit_lamb",
        "train.optimizer.compress_after_step=7", "compression.gradients=auto",
        "compression.activations=delta(int(4),first=int(8))",
        "compression.activation_gradients=ef(int(4))"}}};
  return *settings;
}

std::string Name(const ::testing::TestParamInfo<Setting>& info) {
  return info.param.name;
}

class TiedOwnersTest : public ::testing::TestWithParam<Setting> {};

TEST_P(TiedOwnersTest, AreEqualAfterEveryStepOverLoopbackAndTcp) {
  const Setting& setting = GetParam();
  Strings overrides = Tied(setting.overrides);
  overrides.push_back("train.steps=30");
  overrides.push_back("train.verify_every=1");
  TiedLog log(setting.stages, setting.replicas);
  Job job(setting.stages, setting.replicas, overrides);
  log.Attach(&job);
  Job over_tcp(setting.stages, setting.replicas, overrides);
  over_tcp.use_tcp = true;

  const RunResult result = job.Run();
  const RunResult tcp = over_tcp.Run();

  ExpectSuccess(result);
  ExpectSuccess(tcp);
  log.ExpectEqual(30);
  EXPECT_LT(result.losses.back(), result.losses.front());
  EXPECT_EQ(result.losses, tcp.losses);
  EXPECT_EQ(result.weights, tcp.weights);
}

INSTANTIATE_TEST_SUITE_P(Settings, TiedOwnersTest,
                         ::testing::ValuesIn(Settings()), Name);

const Strings& ZeroOneAdam() {
  static const auto* const overrides =
      new Strings{"train.optimizer.kind=zero_one_adam",
                  "train.optimizer.learning_rate=0.005",
                  "train.optimizer.compress_after_step=6",
                  "train.optimizer.variance_update_scaler=2",
                  "train.optimizer.local_step_scaler=3",
                  "train.optimizer.local_step_clipper=4",
                  "compression.gradients=auto"};
  return *overrides;
}

TEST(TiedTest, OwnersMeetAtTheSynchronisationsOfZeroOneAdam) {
  Strings overrides = Tied(ZeroOneAdam());
  overrides.push_back("train.steps=30");
  overrides.push_back("train.verify_every=1");
  Job job(3, 2, overrides);
  Mutex mutex;
  std::map<int64_t, std::map<int, std::vector<float>>> after;
  job.after_step = [&](int rank, int64_t step, Training* training) {
    if (rank == 2 || rank == 3) return;
    std::vector<float> tied = TiedPartOf(training->weights());
    MutexLock lock(&mutex);
    after[step][rank] = std::move(tied);
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  EXPECT_LT(result.losses.back(), result.losses.front());
  int num_equal = 0;
  int num_apart = 0;
  for (const v1::StepReport& report : result.reports.at(0)) {
    const auto& by_rank = after.at(report.step());
    const bool are_equal = by_rank.at(0) == by_rank.at(1) &&
                           by_rank.at(0) == by_rank.at(4) &&
                           by_rank.at(0) == by_rank.at(5);
    // Replicas are compared where they are to be equal.
    if (report.weights_hash() != 0) {
      EXPECT_TRUE(are_equal) << "step " << report.step();
      ++num_equal;
    } else if (!are_equal) {
      ++num_apart;
    }
  }
  EXPECT_GE(num_equal, 10);
  EXPECT_GE(num_apart, 5);
}

TEST(TiedTest, OwnersStayEqualWhereWorkIsDropped) {
  std::mt19937 random(20240601);
  Job job(2, 2,
          Tied({"train.optimizer.kind=onebit_lamb",
                "train.optimizer.learning_rate=0.01",
                "train.optimizer.compress_after_step=7",
                "compression.gradients=auto", "stragglers.policy=drop",
                "stragglers.max_drop_rate=1", "train.steps=30"}));
  job.assignment().mutable_tuning()->set_straggler_policy("drop");
  for (int64_t step = 0; step < 30; ++step) {
    v1::ExecutedStep* told = job.assignment().add_executed();
    told->set_step(step);
    told->add_microbatches(static_cast<int>(random() % 5));  // of 4; 0, too
    told->add_microbatches(1 + static_cast<int>(random() % 4));
  }
  TiedLog log(2, 2);
  log.Attach(&job);

  const RunResult result = job.Run();

  ExpectSuccess(result);
  log.ExpectEqual(30);
  int64_t dropped = 0;
  for (const v1::StepReport& report : result.reports.at(0)) {
    dropped += report.dropped_samples();
  }
  EXPECT_GT(dropped, 0);
}

TEST(TiedTest, TheGradientNormDoesNotJumpWhenGradientsAreCompressed) {
  // A replica's own gradient is a sum that no rank knows before the exchange.
  const RunResult result =
      Job(3, 2,
          Tied({"train.optimizer.kind=onebit_lamb", "train.steps=30",
                "train.optimizer.learning_rate=0.01",
                "train.optimizer.compress_after_step=10",
                "compression.gradients=sign(block=0)"}))
          .Run();

  ExpectNormDoesNotJump(result, /*compressed_from=*/10);
}

TEST(TiedTest, OwnersTurnToSixteenBitsAndBackWithTheJob) {
  // With one replica what is tied alone travels; wide, to outweigh its frames.
  Job job(3, 1,
          Tied({"model.width=2048", "model.context=2", "train.steps=60",
                "train.optimizer.kind=onebit_lamb",
                "train.optimizer.learning_rate=0.01",
                "train.optimizer.compress_after_step=8",
                "compression.gradients=sign(block=0)"}));
  v1::Tuning first;
  first.set_revision(1);
  first.set_gradients("sign(block=0)");
  first.set_saved_activations("none");
  first.set_straggler_policy("none");
  *job.assignment().mutable_tuning() = first;
  const auto change = [&](uint32_t revision, const std::string& codec,
                          Training* training) {
    v1::Tuning next = first;
    next.set_revision(revision);
    next.set_gradients(codec);
    EXPECT_TRUE(training->PrepareTuning(next).ok());
    training->DecideTuning(revision, /*commit=*/true);
  };
  job.after_step = [&](int, int64_t step, Training* training) {
    if (step == 20) change(2, "cast(bf16)", training);
    if (step == 30) change(3, "sign(block=0)", training);
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const int rank : {0, 2}) {
    const auto& reports = result.reports.at(rank);
    const auto sent = [&reports](size_t from, size_t to) {
      return reports[to].bytes().gradient_wire() -
             reports[from].bytes().gradient_wire();
    };
    EXPECT_GT(sent(22, 29), 5 * sent(12, 19)) << rank;
    EXPECT_GT(sent(22, 29), 5 * sent(50, 57)) << rank;
  }
  EXPECT_EQ(result.done.at(1).bytes().gradient_wire(), 0);
  const auto& first_owner = result.weights.at(0);
  const auto& last_owner = result.weights.at(2);
  EXPECT_TRUE(std::equal(first_owner.end() - 2048, first_owner.end(),
                         last_owner.end() - 2048));
}

TEST(TiedTest, AParameterGroupHoldsAtBothOwners) {
  const Strings overrides = Tied(
      {"train.optimizer.kind=adamw",
       "train.optimizer.groups=[{match: 'layers.0.gain', weight_decay: 0.5}, "
       "{match: '*.shift', learning_rate_scale: 0.5}]"});

  const RunResult whole = Job(1, 1, overrides).Run();
  const RunResult split = Job(3, 2, overrides).Run();
  const RunResult without =
      Job(1, 1, Tied({"train.optimizer.kind=adamw"})).Run();

  ExpectSuccess(whole);
  ExpectSuccess(split);
  EXPECT_NE(whole.losses, without.losses);
  for (int64_t step = 0; step < 20; ++step) {
    EXPECT_NEAR(split.Mean(step), whole.Mean(step), 1e-5 * whole.Mean(step));
  }
  EXPECT_EQ(TiedPartOf(split.weights.at(0)), TiedPartOf(split.weights.at(5)));
}

/// On which rank, in the tied part or before it.
class TiedSkipTest : public ::testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(TiedSkipTest, ANonFiniteGradientSkipsTheStepEverywhere) {
  const auto [bad_rank, is_tied] = GetParam();
  for (const char* kind : {"adamw", "onebit_lamb"}) {
    Strings overrides = Tied({absl::StrCat("train.optimizer.kind=", kind),
                              "train.optimizer.learning_rate=0.01",
                              "train.optimizer.compress_after_step=7",
                              "compression.gradients=auto", "train.steps=30"});
    Job job(3, 2, overrides);
    job.before_forward = [&, rank_of_nan = bad_rank, in_tied = is_tied](
                             int rank, ElementwiseStage* stage, int64_t step,
                             int mb) {
      if (rank == rank_of_nan && step == 20 && mb == 1) {
        (in_tied ? stage->gradients().back() : stage->gradients().front()) =
            std::numeric_limits<float>::quiet_NaN();
      }
      return absl::OkStatus();
    };
    TiedLog log(3, 2);
    log.Attach(&job);

    const RunResult result = job.Run();

    ExpectSuccess(result);
    log.ExpectEqual(30, /*skipped=*/20);
    for (const auto& [rank, reports] : result.reports) {
      for (const v1::StepReport& report : reports) {
        EXPECT_EQ(report.skipped_steps(), report.step() == 20 ? 1 : 0)
            << kind << ", rank " << rank << ", step " << report.step();
      }
    }
    EXPECT_LT(result.losses.back(), result.losses.front());
  }
}

INSTANTIATE_TEST_SUITE_P(
    RanksAndParts, TiedSkipTest,
    ::testing::Values(std::make_tuple(0, true), std::make_tuple(5, true),
                      std::make_tuple(5, false), std::make_tuple(2, false)),
    [](const auto& info) {
      return absl::StrCat("Rank", std::get<0>(info.param),
                          std::get<1>(info.param) ? "Tied" : "Own");
    });

TEST(TiedTest, AWeightThatDiffersBetweenOwnersStopsTheJob) {
  Job job(2, 1, Tied({}));  // verified every 3 steps
  job.before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                          int mb) {
    if (rank == 1 && step == 7 && mb == 0) stage->weights().back() += 1e-3f;
    return absl::OkStatus();
  };

  const RunResult result = job.Run();

  for (int rank : {0, 1}) {
    EXPECT_EQ(result.done.at(rank).steps(), 8) << rank;
    EXPECT_THAT(
        result.done.at(rank).error_message(),
        HasSubstr("tied weights \"layers.0.gain\" of stage 0, replica 0 and of "
                  "stage 1, replica 0 differ after step 9"));
    EXPECT_FALSE(result.done.at(rank).is_consequence());
  }
}

TEST(TiedTest, OwnersThatBeginWithOtherWeightsAreRefused) {
  Job job(2, 2, Tied({}));
  job.adjust = [](int rank, v1::Assignment* assignment) {
    if (rank >= 2) assignment->mutable_spec()->set_seed(99);
  };

  const RunResult result = job.Run();

  for (const auto& [rank, done] : result.done) {
    EXPECT_THAT(done.error_message(),
                HasSubstr("of stage 0, replica 0 and of stage 1, replica 0 "
                          "differ before training begins"))
        << "rank " << rank;
  }
}

TEST(TiedTest, TheModelFileHoldsTheTensorOnce) {
  Job job(3, 2, Tied({}));
  const RunResult result = job.Run();

  ExpectSuccess(result);
  const auto file = SafetensorsFile::Read(result.done.at(0).model_path());
  ASSERT_TRUE(file.ok()) << file.status();
  const auto gains = file->FloatValues("layers.0.gain");
  ASSERT_TRUE(gains.ok()) << gains.status();
  EXPECT_EQ(*gains, TiedPartOf(result.weights.at(4)));
  EXPECT_FALSE(file->FloatValues("layers.3.gain").ok());
  EXPECT_TRUE(file->FloatValues("layers.3.shift").ok());
}

class TiedCheckpointTest : public ::testing::TestWithParam<Setting> {
 protected:
  std::unique_ptr<Job> MakeJob(int stages, int replicas,
                               const Strings& overrides, uint64_t generation) {
    auto job = std::make_unique<Job>(stages, replicas, Tied(overrides));
    job->takes_checkpoints = true;
    job->assignment().set_checkpoint_folder(folder_);
    job->assignment().set_generation(generation);
    job->assignment().set_resume(generation > 3);
    return job;
  }

  const TemporaryFolder temporary_ =
      TemporaryFolder::Create("checkpoints").value();
  const std::string folder_ = temporary_.path();
};

TEST_P(TiedCheckpointTest, GoesOnBitForBit) {
  const Setting& setting = GetParam();
  Strings overrides = setting.overrides;
  overrides.push_back("train.steps=30");
  overrides.push_back("checkpoint.every=5");
  const RunResult whole =
      Job(setting.stages, setting.replicas, Tied(overrides)).Run();

  const auto broken = MakeJob(setting.stages, setting.replicas, overrides, 3);
  broken->after_step = [](int, int64_t step, Training* training) {
    if (step == 17) training->Cancel(absl::UnavailableError("broken"));
  };
  broken->Run();
  const RunResult rest =
      MakeJob(setting.stages, setting.replicas, overrides, 4)->Run();

  ExpectSuccess(whole);
  ExpectSuccess(rest);
  const int64_t from = rest.ready.at(0).restored_step();
  EXPECT_GE(from, 10);
  EXPECT_LE(from, 17);
  for (int64_t step = from; step < 30; ++step) {
    EXPECT_EQ(rest.Mean(step), whole.Mean(step)) << "step " << step;
  }
  EXPECT_EQ(rest.weights, whole.weights);
}

INSTANTIATE_TEST_SUITE_P(
    Settings, TiedCheckpointTest, ::testing::ValuesIn([] {
      std::vector<Setting> settings = Settings();
      settings.push_back({"ZeroOneAdam", 2, 2, ZeroOneAdam()});
      settings.push_back({"Adam", 3, 1, {"train.optimizer.kind=adamw"}});
      return settings;
    }()),
    Name);

class TiedResizeTest : public TiedCheckpointTest {};

TEST_P(TiedResizeTest, WhatIsOwedPassesToAnotherNumberOfReplicas) {
  const Strings overrides = {"train.optimizer.kind=onebit_lamb",
                             "train.optimizer.compress_after_step=7",
                             "compression.gradients=auto",
                             "train.steps=40",
                             "train.batch=48",
                             "checkpoint.every=20"};
  const int after = GetParam().replicas;
  const RunResult whole = MakeJob(2, 3, overrides, 3)->Run();
  const std::string checkpoint =
      absl::StrCat(folder_, "/", CheckpointFolderName(20, 3));

  const RunResult rest = MakeJob(2, after, overrides, 4)->Run();
  // Without the file of one owner's rank both owners lose what all of them owe.
  ASSERT_EQ(unlink((checkpoint + "/rank-4.safetensors").c_str()), 0);
  const RunResult poorer = MakeJob(2, after, overrides, 5)->Run();

  ExpectSuccess(whole);
  ExpectSuccess(rest);
  ExpectSuccess(poorer);
  ASSERT_EQ(rest.ready.at(0).restored_step(), 20);
  for (const auto& [rank, weights] : rest.weights) {
    EXPECT_EQ(TiedPartOf(weights), TiedPartOf(rest.weights.at(0)))
        << "rank " << rank;
  }
  EXPECT_LT(rest.losses.back(), rest.Mean(20));
  EXPECT_NEAR(rest.losses.back(), whole.losses.back(),
              0.1 * whole.losses.back());
  EXPECT_THAT(poorer.ready.at(0).notes(),
              ElementsAre(HasSubstr("residuals are spread"),
                          HasSubstr("residuals of tied weights of rank 0")));
  EXPECT_NE(TiedPartOf(poorer.weights.at(0)), TiedPartOf(rest.weights.at(0)));
}

INSTANTIATE_TEST_SUITE_P(Replicas, TiedResizeTest,
                         ::testing::Values(Setting{"Fewer", 2, 1, {}},
                                           Setting{"More", 2, 4, {}}),
                         Name);

}  // namespace
}  // namespace deltapipe
