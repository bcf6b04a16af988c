// Checkpoints of the engine as a whole: what is restored goes on, bit for bit,
// as if nothing had happened.
#include <gmock/gmock.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/checkpoint/manifest.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "base/stock_safetensors.h"
#include "base/temporary_folder.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

struct Setting {
  const char* name;
  int stages;
  int replicas;
  std::vector<std::string> overrides;
};

/// The tensors of a file, one a line as StockSafetensorsText has them.
std::vector<std::string> LinesOf(const std::string& path) {
  std::vector<std::string> lines;
  const auto file = SafetensorsFile::Read(path);
  EXPECT_TRUE(file.ok()) << file.status();
  if (!file.ok()) return lines;
  for (const SafetensorsFile::Entry& entry : file->entries()) {
    const TensorView tensor = file->Tensor(entry.name).value();
    const absl::string_view bytes(static_cast<const char*>(tensor.data()),
                                  static_cast<size_t>(tensor.num_bytes()));
    lines.push_back(absl::StrCat(
        entry.name, " ", SafetensorsTypeName(entry.dtype), " [",
        absl::StrJoin(entry.shape, ", "), "] ", absl::BytesToHexString(bytes)));
  }
  return lines;
}

std::string Name(const ::testing::TestParamInfo<Setting>& info) {
  return info.param.name;
}

class CheckpointTest : public ::testing::Test {
 protected:
  std::unique_ptr<Job> MakeJob(int stages, int replicas,
                               std::vector<std::string> overrides,
                               uint64_t generation = 3) {
    auto job = std::make_unique<Job>(stages, replicas, overrides);
    job->takes_checkpoints = true;
    job->assignment().set_checkpoint_folder(folder_);
    job->assignment().set_generation(generation);
    return job;
  }

  /// With checkpoints in another folder.
  static RunResult RunElsewhere(Job* job) {
    const auto folder = TemporaryFolder::Create("checkpoints").value();
    job->assignment().set_checkpoint_folder(folder.path());
    return job->Run();
  }

  /// Runs until step `last` (from 0) is done, where all ranks give up.
  RunResult RunAndBreakAfter(Job* job, int64_t last) {
    job->after_step = [last](int, int64_t step, Training* training) {
      if (step == last) training->Cancel(absl::UnavailableError("broken"));
    };
    return job->Run();
  }

  /// A step waits until the checkpoints that are due before it are complete: a
  /// disk that is busy for `every` steps would cost one.
  static void AwaitCheckpoints(int64_t every, Job* job) {
    struct Progress {
      Mutex mutex;
      CondVar changed;
      int64_t complete DP_GUARDED_BY(mutex) = 0;
    };
    const auto progress = std::make_shared<Progress>();
    job->on_checkpoint = [progress](const CompleteCheckpoint& checkpoint) {
      MutexLock lock(&progress->mutex);
      progress->complete = checkpoint.folder.step();
      progress->changed.NotifyAll();
    };
    job->before_forward = [progress, every, inner = job->before_forward](
                              int rank, ElementwiseStage* stage, int64_t step,
                              int microbatch) -> absl::Status {
      {
        MutexLock lock(&progress->mutex);
        const bool is_complete = progress->changed.WaitUntil(
            lock, Deadline::After(std::chrono::seconds(20)),
            [&] { return progress->complete >= step / every * every; });
        if (!is_complete) {
          return absl::DeadlineExceededError("no checkpoint came");
        }
      }
      return inner ? inner(rank, stage, step, microbatch) : absl::OkStatus();
    };
  }

  const TemporaryFolder temporary_ =
      TemporaryFolder::Create("checkpoints").value();
  const std::string folder_ = temporary_.path();
};

class ResumeTest : public CheckpointTest,
                   public ::testing::WithParamInterface<Setting> {};

TEST_P(ResumeTest, GoesOnBitForBit) {
  const Setting& setting = GetParam();
  std::vector<std::string> overrides = setting.overrides;
  overrides.push_back("train.steps=30");
  overrides.push_back("checkpoint.every=5");
  const RunResult whole =
      RunElsewhere(MakeJob(setting.stages, setting.replicas, overrides).get());

  const auto broken = MakeJob(setting.stages, setting.replicas, overrides);
  RunAndBreakAfter(broken.get(), 17);
  const auto resumed = MakeJob(setting.stages, setting.replicas, overrides, 4);
  resumed->assignment().set_resume(true);
  const RunResult rest = resumed->Run();

  ExpectSuccess(whole);
  ExpectSuccess(rest);
  const int64_t from = rest.ready.at(0).restored_step();
  // The last one may not have been complete when the job broke; those of 0/1
  // Adam wait for a synchronisation.
  EXPECT_GE(from, 10);
  EXPECT_LE(from, 17);
  for (int64_t step = from; step < 30; ++step) {
    EXPECT_EQ(rest.Mean(step), whole.Mean(step)) << "step " << step;
  }
  for (const auto& [rank, weights] : whole.weights) {
    EXPECT_EQ(rest.weights.at(rank), weights) << "rank " << rank;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Settings, ResumeTest,
    ::testing::Values(
        Setting{"AloneWithAdam", 1, 1, {"train.optimizer.kind=adamw"}},
        Setting{"PlainReplicas", 2, 2, {"train.optimizer.kind=lamb"}},
        Setting{"Deltas",
                3,
                1,
                {"train.optimizer.kind=adamw",
                 "compression.activations=delta(int(4),first=int(8))",
                 "compression.activation_gradients=ef(int(4))"}},
        Setting{"RecordsInACodec",
                2,
                1,
                {"compression.activations=delta(int(4),first=int(8),store="
                 "int(8))",
                 "compression.activation_gradients=ef(int(4),store=int(8))"}},
        Setting{"CodecsThatRemember",
                2,
                1,
                {"compression.activations=delta(per_head(int(4)),first="
                 "lowrank(2))",
                 "compression.activation_gradients=luq(range=hindsight)"}},
        Setting{"OneBit",
                2,
                2,
                {"train.optimizer.kind=onebit_lamb",
                 "train.optimizer.compress_after_step=7",
                 "compression.gradients=auto",
                 "compression.activations=delta(int(2),first=int(8),store="
                 "fp32)",
                 "compression.activation_gradients=int(8)"}},
        Setting{"OneBitAdam",
                2,
                2,
                {"train.optimizer.kind=onebit_adam",
                 "train.optimizer.learning_rate=0.005",
                 "train.optimizer.compress_after_step=7",
                 "compression.gradients=auto"}},
        Setting{"ZeroOneAdam",
                2,
                2,
                {"train.optimizer.kind=zero_one_adam",
                 "train.optimizer.learning_rate=0.005",
                 "train.optimizer.compress_after_step=6",
                 "train.optimizer.variance_update_scaler=2",
                 "train.optimizer.local_step_scaler=3",
                 "train.optimizer.local_step_clipper=4",
                 "compression.gradients=auto"}},
        Setting{"WithoutFlush",
                2,
                2,
                {"parallel.schedule=2bw", "train.optimizer.kind=onebit_lamb",
                 "train.optimizer.compress_after_step=7",
                 "compression.gradients=auto",
                 "compression.activations=delta(int(4),first=int(8))",
                 "compression.activation_gradients=ef(int(4))"}},
        Setting{"ShiftedMomentumInShares",
                2,
                2,
                {"parallel.schedule=2bw", "train.optimizer.kind=sgd",
                 "train.optimizer.shard_state=on"}},
        Setting{
            "ByDecision",
            2,
            2,
            {"train.optimizer.kind=onebit_lamb", "train.optimizer.beta2=0.8",
             "train.optimizer.compress_after_step=auto",
             "compression.gradients=auto"}},
        Setting{
            "ZeroOneAdamByDecision",
            2,
            2,
            {"train.optimizer.kind=zero_one_adam",
             "train.optimizer.learning_rate=0.005", "train.optimizer.beta2=0.8",
             "train.optimizer.compress_after_step=auto",
             "train.optimizer.local_step_scaler=3",
             "train.optimizer.local_step_clipper=4",
             "compression.gradients=auto"}},
        Setting{"Nodes",
                1,
                4,
                {"train.optimizer.kind=onebit_lamb", "parallel.nodes=2",
                 "train.optimizer.compress_after_step=7",
                 "compression.gradients=auto"}}),
    Name);

// Gradients that were compressed otherwise when the checkpoint was written: by
// another spec, or before the tuning was changed.
TEST_F(CheckpointTest, GradientsInOtherCodecsGoOn) {
  const auto make_job = [&](int64_t steps, const std::string& codec,
                            uint64_t generation) {
    return MakeJob(2, 2,
                   {"train.optimizer.kind=onebit_lamb",
                    "train.optimizer.compress_after_step=7",
                    "checkpoint.every=5", absl::StrCat("train.steps=", steps),
                    absl::StrCat("compression.gradients=", codec)},
                   generation);
  };
  const auto former = make_job(30, "auto", 3);
  AwaitCheckpoints(5, former.get());
  RunAndBreakAfter(former.get(), 17);
  uint64_t generation = 4;
  int64_t steps = 20;
  for (const char* codec : {"cast(bf16)", "int(4)", "sign(block=0)", "none"}) {
    for (const bool is_tuned : {false, true}) {
      SCOPED_TRACE(absl::StrCat(codec, is_tuned ? ", tuned" : ""));
      if (is_tuned && absl::string_view(codec) == "none") continue;
      const auto job = make_job(steps, is_tuned ? "auto" : codec, generation++);
      job->assignment().set_resume(true);
      job->assignment().mutable_tuning()->set_revision(7);
      if (is_tuned) job->assignment().mutable_tuning()->set_gradients(codec);

      const RunResult rest = job->Run();

      ExpectSuccess(rest);
      EXPECT_GE(rest.ready.at(0).restored_step(), 15);
      EXPECT_TRUE(std::isfinite(rest.losses.back()));
      // Beyond what was written meanwhile.
      steps += 5;
    }
  }
}

struct OtherCodecs {
  const char* name;
  const char* former_activations;
  const char* former_gradients;
  const char* activations;
  const char* gradients;
  /// Of the notes: parts of them, in this order.
  std::vector<std::string> left_out;
};

class OtherCodecsTest : public CheckpointTest,
                        public ::testing::WithParamInterface<OtherCodecs> {
 protected:
  std::unique_ptr<Job> MakeJobWith(const char* activations,
                                   const char* gradients,
                                   uint64_t generation = 3) {
    return MakeJob(
        2, 2,
        {absl::StrCat("compression.activations=", activations),
         absl::StrCat("compression.activation_gradients=", gradients),
         "train.steps=30", "checkpoint.every=5", "checkpoint.keep=5"},
        generation);
  }
  std::unique_ptr<Job> MakeFormer(uint64_t generation = 3) {
    return MakeJobWith(GetParam().former_activations,
                       GetParam().former_gradients, generation);
  }
  /// Stops after step 18 with a checkpoint of step 15.
  void RunFormer() {
    const auto former = MakeFormer();
    AwaitCheckpoints(5, former.get());
    RunAndBreakAfter(former.get(), 17);
  }

  void ExpectGoesOn(const RunResult& rest) {
    ExpectSuccess(rest);
    EXPECT_EQ(rest.ready.at(0).restored_step(), 15);
    std::vector<std::string> notes;
    for (const auto& [rank, ready] : rest.ready) {
      notes.insert(notes.end(), ready.notes().begin(), ready.notes().end());
    }
    ASSERT_EQ(notes.size(), GetParam().left_out.size())
        << absl::StrJoin(notes, "\n");
    for (size_t i = 0; i < notes.size(); ++i) {
      EXPECT_THAT(notes[i], HasSubstr(GetParam().left_out[i]));
    }
    EXPECT_LT(rest.losses.back(), rest.Mean(15));
  }
};

// `run --resume` with another spec.
TEST_P(OtherCodecsTest, OfTheSpecGoOn) {
  RunFormer();
  const auto resumed =
      MakeJobWith(GetParam().activations, GetParam().gradients, 4);
  resumed->assignment().set_resume(true);

  ExpectGoesOn(resumed->Run());
}

// A codec was changed after the checkpoint from which a worker's loss makes the
// job go on.
TEST_P(OtherCodecsTest, OfALaterTuningGoOn) {
  RunFormer();
  const auto resumed = MakeFormer(4);
  resumed->assignment().set_resume(true);
  v1::Tuning& tuning = *resumed->assignment().mutable_tuning();
  tuning.set_revision(7);
  v1::BoundaryTuning& boundary = *tuning.add_boundaries();
  boundary.set_activations(GetParam().activations);
  boundary.set_activation_gradients(GetParam().gradients);

  ExpectGoesOn(resumed->Run());
}

INSTANTIATE_TEST_SUITE_P(
    Codecs, OtherCodecsTest,
    ::testing::Values(
        OtherCodecs{"DeltaToNone",
                    "delta(int(4),first=int(8))",
                    "int(8)",
                    "int(8)",
                    "int(8)",
                    {"boundary 0: what delta("}},
        OtherCodecs{"NoneToDelta",
                    "int(8)",
                    "int(8)",
                    "delta(int(4),first=int(8))",
                    "ef(int(4))",
                    {}},
        // Records and residuals of equal sizes are no less strange.
        OtherCodecs{"DeltaToFeedback",
                    "delta(int(4),first=int(8),store=fp32)",
                    "ef(int(4))",
                    "ef(int(4))",
                    "delta(int(4),first=int(8),store=fp32)",
                    {" activations is left out, since ef(",
                     " gradients is left out, since delta("}},
        OtherCodecs{"AnotherStore",
                    "delta(int(4),first=int(8))",
                    "ef(int(4))",
                    "delta(int(4),first=int(8),store=int(8))",
                    "ef(int(4),store=int(8))",
                    {" activations is left out", " gradients is left out"}},
        OtherCodecs{"FewerBits",
                    "delta(int(4),first=int(8))",
                    "ef(int(4))",
                    "delta(int(3),first=none)",
                    "ef(int(6))",
                    {}},
        OtherCodecs{"NothingRemembered",
                    "lowrank(2)",
                    "luq(range=hindsight)",
                    "int(8)",
                    "lowrank(3)",
                    {}}),
    [](const ::testing::TestParamInfo<OtherCodecs>& info) {
      return std::string(info.param.name);
    });

// Gradients grow ten-fold at step 24, while 1-bit Adam compresses; the break is
// where it has seen that, but not often enough to go back.
TEST_F(CheckpointTest, ADecisionToGoBackIsResumedBitForBit) {
  const std::vector<std::string> overrides = {
      "train.steps=60",
      "checkpoint.every=9",
      "train.clip_norm=0",
      "train.optimizer.kind=onebit_adam",
      "train.optimizer.beta2=0.8",
      "train.optimizer.learning_rate=1e-5",
      "train.optimizer.compress_after_step=auto",
      "compression.gradients=auto"};
  const auto make_job = [&](uint64_t generation) {
    auto job = MakeJob(2, 2, overrides, generation);
    job->before_forward = [](int, ElementwiseStage* stage, int64_t step, int) {
      for (float& value : stage->gradients()) value += step < 24 ? 0.1f : 1.0f;
      return absl::OkStatus();
    };
    return job;
  };
  const RunResult whole = RunElsewhere(make_job(3).get());

  const auto broken = make_job(3);
  AwaitCheckpoints(9, broken.get());
  RunAndBreakAfter(broken.get(), 28);
  const auto resumed = make_job(4);
  resumed->assignment().set_resume(true);
  const RunResult rest = resumed->Run();

  ExpectSuccess(whole);
  ExpectSuccess(rest);
  const std::vector<v1::StepReport>& reports = whole.reports.at(0);
  const auto is_compressed = [&](size_t step) {
    return reports[step].compressed();
  };
  EXPECT_TRUE(is_compressed(24));
  EXPECT_TRUE(is_compressed(27));
  EXPECT_FALSE(is_compressed(35));
  EXPECT_TRUE(is_compressed(59));
  EXPECT_EQ(rest.ready.at(0).restored_step(), 27);
  for (int64_t step = 27; step < 60; ++step) {
    EXPECT_EQ(rest.Mean(step), whole.Mean(step)) << "step " << step;
    EXPECT_EQ(rest.reports.at(0)[static_cast<size_t>(step - 27)].compressed(),
              is_compressed(static_cast<size_t>(step)))
        << "step " << step;
  }
  EXPECT_EQ(rest.weights, whole.weights);
}

TEST_F(CheckpointTest, PauseEndsWithACompleteCheckpointOfThatStep) {
  const std::vector<std::string> overrides = {"train.steps=40"};
  const auto job = MakeJob(2, 2, overrides);
  job->after_step = [](int rank, int64_t step, Training* training) {
    if (rank == 2 && step == 6) training->RequestPause();
  };
  const RunResult paused = job->Run();
  const auto resumed = MakeJob(2, 2, overrides, 4);
  resumed->assignment().set_resume(true);
  const RunResult rest = resumed->Run();

  ExpectSuccess(paused);
  for (const auto& [rank, done] : paused.done) {
    EXPECT_TRUE(done.stopped_early());
    EXPECT_EQ(done.checkpoint_step(), done.steps());
    EXPECT_EQ(rest.ready.at(rank).restored_step(), done.steps());
    EXPECT_THAT(rest.ready.at(rank).notes(), IsEmpty());
  }
  ExpectSuccess(rest);
  EXPECT_EQ(rest.done.at(0).steps(), 40);
}

TEST_F(CheckpointTest, WithoutRoomThePauseIsOffAndTrainingGoesOn) {
  const auto job = MakeJob(2, 1, {"train.steps=20"});
  // A file where the folder should be.
  job->assignment().set_checkpoint_folder(folder_ + "/file");
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/file", "in the way").ok());
  job->after_step = [](int rank, int64_t step, Training* training) {
    if (rank == 0 && step == 3) training->RequestPause();
  };

  const RunResult result = job->Run();

  ExpectSuccess(result);
  EXPECT_EQ(result.done.at(0).steps(), 20);
  EXPECT_FALSE(result.done.at(0).stopped_early());
}

TEST_F(CheckpointTest, DamageMeansTheOneBefore) {
  const std::vector<std::string> overrides = {
      "train.steps=20", "checkpoint.every=5", "checkpoint.keep=5"};
  const auto first = MakeJob(2, 2, overrides);
  AwaitCheckpoints(5, first.get());
  ASSERT_EQ(first->Run().done.at(0).error_code(), 0);
  const auto scan = ScanCheckpoints(folder_);
  ASSERT_TRUE(scan.ok());
  ASSERT_EQ(scan->checkpoints.size(), 3u);
  const std::string newest = scan->checkpoints[0].path;
  std::string bytes = *ReadFile(newest + "/rank-3.safetensors");
  bytes[bytes.size() / 2] ^= 4;
  ASSERT_TRUE(WriteFileAtomically(newest + "/rank-3.safetensors", bytes).ok());

  const auto resumed = MakeJob(2, 2, overrides, 4);
  resumed->assignment().set_resume(true);
  const RunResult rest = resumed->Run();

  ExpectSuccess(rest);
  EXPECT_EQ(rest.ready.at(0).restored_step(), 10);
  EXPECT_THAT(rest.ready.at(3).notes(),
              ElementsAre(HasSubstr("rank-3.safetensors")));
}

class LostMachineTest : public CheckpointTest,
                        public ::testing::WithParamInterface<Setting> {};

TEST_P(LostMachineTest, FilesOfItAreReplacedByAReplicas) {
  std::vector<std::string> overrides = {"train.steps=20", "checkpoint.every=5",
                                        "checkpoint.keep=5",
                                        "train.optimizer.kind=adamw"};
  const auto& more = GetParam().overrides;
  overrides.insert(overrides.end(), more.begin(), more.end());
  const auto first = MakeJob(2, 2, overrides);
  // So that a loss scale, where there is one, is not that of the beginning.
  first->before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                             int) {
    if (rank == 1 && step == 2) stage->gradients()[3] = NAN;
    return absl::OkStatus();
  };
  AwaitCheckpoints(5, first.get());
  const RunResult whole = first->Run();
  ExpectSuccess(whole);

  const auto resumed = MakeJob(2, 2, overrides, 4);
  resumed->assignment().set_resume(true);
  // Rank 0 finds an empty folder, as on another machine.
  const std::string elsewhere = folder_ + "/elsewhere";
  resumed->adjust = [&](int rank, v1::Assignment* assignment) {
    if (rank != 0) return;
    const std::string name = CheckpointFolderName(15, 3);
    ASSERT_TRUE(MakeDirectories(elsewhere + "/" + name).ok());
    const std::string manifest =
        *ReadFile(folder_ + "/" + name + "/manifest.json");
    ASSERT_TRUE(StoreManifest(elsewhere + "/" + name, manifest).ok());
    assignment->set_checkpoint_folder(elsewhere);
  };
  const RunResult rest = resumed->Run();

  ExpectSuccess(rest);
  EXPECT_EQ(rest.ready.at(0).restored_step(), 15);
  EXPECT_THAT(rest.ready.at(0).notes(),
              ElementsAre(HasSubstr("without residuals and delta records")));
  // Nothing but weights and moments matters to AdamW without deltas.
  EXPECT_EQ(rest.weights.at(0), whole.weights.at(0));
  EXPECT_EQ(rest.weights.at(3), whole.weights.at(3));
  EXPECT_EQ(rest.reports.at(0).back().loss_scale(),
            whole.reports.at(0).back().loss_scale());
}

INSTANTIATE_TEST_SUITE_P(
    Settings, LostMachineTest,
    ::testing::Values(Setting{"Plain", 2, 2, {}},
                      Setting{"SharedOutStateInFp16",
                              2,
                              2,
                              {"train.optimizer.shard_state=on",
                               "train.precision=fp16"}}),
    Name);

class ResizeTest : public CheckpointTest,
                   public ::testing::WithParamInterface<std::tuple<int, int>> {
};

TEST_P(ResizeTest, AnotherNumberOfReplicasGoesOn) {
  const auto [before, after] = GetParam();
  const std::vector<std::string> overrides = {
      "train.optimizer.kind=adamw", "train.steps=30", "checkpoint.every=5"};
  const RunResult whole = RunElsewhere(MakeJob(2, before, overrides).get());
  RunAndBreakAfter(MakeJob(2, before, overrides).get(), 17);
  const auto resumed = MakeJob(2, after, overrides, 4);
  resumed->assignment().set_resume(true);

  const RunResult rest = resumed->Run();

  ExpectSuccess(whole);
  ExpectSuccess(rest);
  const int64_t from = rest.ready.at(0).restored_step();
  EXPECT_GE(from, 10);
  EXPECT_THAT(rest.ready.at(0).notes(),
              ElementsAre(HasSubstr("residuals are spread over the replicas")));
  // The same batches; only the order of summation is another.
  for (int64_t step = from; step < 30; ++step) {
    EXPECT_NEAR(rest.Mean(step), whole.Mean(step), 1e-5 * whole.Mean(step))
        << "step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Replicas, ResizeTest,
                         ::testing::Values(std::make_tuple(1, 2),
                                           std::make_tuple(2, 1),
                                           std::make_tuple(2, 4),
                                           std::make_tuple(4, 2)));

TEST_F(CheckpointTest, WhatIsOwedPassesToAnotherNumberOfReplicas) {
  const std::vector<std::string> overrides = {
      "train.optimizer.kind=onebit_lamb",
      "train.optimizer.compress_after_step=7",
      "compression.gradients=auto",
      "compression.activations=delta(int(4),first=int(8))",
      "train.steps=40",
      "checkpoint.every=20"};
  const RunResult whole = MakeJob(2, 4, overrides)->Run();
  const std::string name = CheckpointFolderName(20, 3);
  const auto resumed = MakeJob(2, 2, overrides, 4);
  resumed->assignment().set_resume(true);

  const RunResult rest = resumed->Run();

  ExpectSuccess(whole);
  ExpectSuccess(rest);
  ASSERT_EQ(rest.ready.at(0).restored_step(), 20);
  EXPECT_EQ(rest.weights.at(2), rest.weights.at(3));
  EXPECT_LT(rest.losses.back(), rest.Mean(20));
  EXPECT_NEAR(rest.losses.back(), whole.losses.back(),
              0.1 * whole.losses.back());

  // Ranks that do not find all files of their stage say so and go on.
  ASSERT_EQ(unlink((folder_ + "/" + name + "/rank-1.safetensors").c_str()), 0);
  const auto poorer = MakeJob(2, 2, overrides, 5);
  poorer->assignment().set_resume(true);

  const RunResult without = poorer->Run();

  ExpectSuccess(without);
  EXPECT_EQ(without.ready.at(0).restored_step(), 20);
  EXPECT_THAT(without.ready.at(0).notes(),
              ElementsAre(HasSubstr("not all files of its stage")));
  EXPECT_THAT(without.ready.at(2).notes(), IsEmpty());
}

TEST_F(CheckpointTest, AnotherShapeStartsFromTheBeginningAndSaysSo) {
  const std::vector<std::string> overrides = {"train.steps=12",
                                              "checkpoint.every=5"};
  ASSERT_EQ(MakeJob(2, 2, overrides)->Run().done.at(0).error_code(), 0);

  const auto resumed = MakeJob(4, 1, overrides, 4);
  resumed->assignment().set_resume(true);
  const RunResult rest = resumed->Run();

  ExpectSuccess(rest);
  EXPECT_EQ(rest.ready.at(0).restored_step(), 0);
  EXPECT_THAT(rest.ready.at(0).notes(),
              ::testing::Contains(HasSubstr(
                  "is of 2 stages x 2 replicas, this job has 4 x 1")));
}

TEST_F(CheckpointTest, WhatDivergedEndsAndTheCheckpointsOfBeforeStay) {
  for (const char* schedule : {"1f1b", "2bw"}) {
    SCOPED_TRACE(schedule);
    const auto folder = TemporaryFolder::Create("checkpoints").value();
    const auto job = MakeJob(
        2, 2,
        {"train.steps=300", "checkpoint.every=5", "train.optimizer.kind=adamw",
         absl::StrCat("parallel.schedule=", schedule)});
    job->assignment().set_checkpoint_folder(folder.path());
    AwaitCheckpoints(5, job.get());
    // None is written from step 24 on.
    job->before_forward = [await = job->before_forward](
                              int rank, ElementwiseStage* stage, int64_t step,
                              int microbatch) -> absl::Status {
      if (step < 23) return await(rank, stage, step, microbatch);
      if (rank == 3) stage->gradients()[5] = NAN;
      return absl::OkStatus();
    };

    const RunResult result = job->Run();

    // Who is told by a peer that has ended first says that it is a consequence.
    int num_causes = 0;
    for (const auto& [rank, done] : result.done) {
      EXPECT_NE(done.error_code(), 0) << rank;
      if (done.is_consequence()) continue;
      ++num_causes;
      EXPECT_THAT(done.error_message(),
                  HasSubstr("the gradients of 100 steps in a row, up to step "
                            "123, were not finite"));
    }
    EXPECT_GT(num_causes, 0);
    const auto scan = ScanCheckpoints(folder.path());
    ASSERT_TRUE(scan.ok());
    ASSERT_EQ(scan->checkpoints.size(), 2u);
    EXPECT_EQ(scan->checkpoints[0].manifest.step, 20);
  }
}

TEST_F(CheckpointTest, OneThatIsDueAfterASkippedStepComesAfterTheNext) {
  const auto job = MakeJob(1, 2, {"train.steps=12", "checkpoint.every=5"});
  job->before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                           int) {
    if (rank == 1 && step == 9) stage->gradients()[5] = NAN;
    return absl::OkStatus();
  };

  ExpectSuccess(job->Run());

  const auto scan = ScanCheckpoints(folder_);
  ASSERT_TRUE(scan.ok());
  ASSERT_FALSE(scan->checkpoints.empty());
  EXPECT_EQ(scan->checkpoints[0].manifest.step, 11);
}

TEST_F(CheckpointTest, OldOnesGoAndTheNewestStay) {
  const auto job = MakeJob(2, 1, {"train.steps=30", "checkpoint.every=4"});
  AwaitCheckpoints(4, job.get());
  ASSERT_EQ(job->Run().done.at(0).error_code(), 0);

  const auto scan = ScanCheckpoints(folder_);

  ASSERT_TRUE(scan.ok());
  ASSERT_EQ(scan->checkpoints.size(), 2u);
  EXPECT_EQ(scan->checkpoints[0].manifest.step, 28);
  EXPECT_EQ(scan->checkpoints[1].manifest.step, 24);
  EXPECT_THAT(scan->refused, IsEmpty());
}

TEST_F(CheckpointTest, StockSafetensorsReadsEveryShard) {
  const std::string missing = WhyNoStockSafetensors();
  if (!missing.empty()) GTEST_SKIP() << missing;
  const auto job = MakeJob(
      2, 2,
      {"train.steps=12", "checkpoint.every=5",
       "train.optimizer.kind=onebit_lamb",
       "train.optimizer.compress_after_step=3", "compression.gradients=auto",
       "compression.activations=delta(int(4),first=int(8))",
       "compression.activation_gradients=ef(int(4))"});
  AwaitCheckpoints(5, job.get());
  ExpectSuccess(job->Run());

  const auto scan = ScanCheckpoints(folder_);

  ASSERT_TRUE(scan.ok());
  int num_shards = 0;
  for (const FoundCheckpoint& found : scan->checkpoints) {
    for (const ManifestFile& file : found.manifest.files) {
      const std::string path = absl::StrCat(found.path, "/", file.name);
      const std::vector<std::string> read =
          absl::StrSplit(StockSafetensorsText(path), '\n', absl::SkipEmpty());
      EXPECT_THAT(read, UnorderedElementsAreArray(LinesOf(path))) << path;
      ++num_shards;
    }
  }
  // Of two checkpoints, those of two stages and four ranks.
  EXPECT_EQ(num_shards, 2 * (2 + 4));
}

}  // namespace
}  // namespace deltapipe
