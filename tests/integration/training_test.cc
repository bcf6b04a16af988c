// The worker's engine as a whole: plans of the coordinator's scheduler, all
// ranks of a job as threads of one process, real frames over loopback or TCP.
#include "worker/engine/training.h"

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/mutex.h"
#include "coordinator/schedule/build_plan.h"
#include "coordinator/spec/job_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"
#include "worker/engine/nccl_upgrade.h"
#include "worker/stage/testing/elementwise_stage.h"
#include "worker/transport/faulty/faulty_channel.h"
#include "worker/transport/loopback/loopback_transport.h"
#include "worker/transport/nccl/testing/fake_gpu.h"
#include "worker/transport/recording/recording_channel.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SplitTest : public ::testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(SplitTest, EqualsWhole) {
  const auto [stages, replicas] = GetParam();
  for (const char* optimizer : {"sgd", "adamw", "lamb"}) {
    const std::vector<std::string> overrides = {
        absl::StrCat("train.optimizer.kind=", optimizer),
        "train.clip_norm=0.2"};

    const RunResult whole = Job(1, 1, overrides).Run();
    const RunResult split = Job(stages, replicas, overrides).Run();

    ExpectLossesOfTheWhole(split, whole, optimizer);
    ExpectNormsOfTheWhole(split, whole, /*clip_norm=*/0.2, optimizer);
  }
}

INSTANTIATE_TEST_SUITE_P(Partitions, SplitTest,
                         ::testing::Values(std::make_tuple(2, 1),
                                           std::make_tuple(4, 1),
                                           std::make_tuple(1, 2),
                                           std::make_tuple(2, 2),
                                           std::make_tuple(4, 2)));

const std::vector<std::string>& CompressedOverrides() {
  static const auto* const overrides = new std::vector<std::string>{
      "train.steps=60",
      "train.optimizer.kind=onebit_lamb",
      "train.optimizer.learning_rate=0.01",
      "train.optimizer.compress_after_step=10",
      "compression.activations=delta(int(4),first=int(8))",
      "compression.activation_gradients=int(8,round=stochastic)",
      "compression.gradients=sign(block=0)"};
  return *overrides;
}

/// Losses and weights of two runs are equal bit for bit.
void ExpectSame(const RunResult& a, const RunResult& b) {
  ExpectSuccess(a);
  ExpectSuccess(b);
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.weights, b.weights);
}

TEST(TrainingTest, CompressedRunsLearnAndReplicasStayEqual) {
  const RunResult result = Job(2, 2, CompressedOverrides()).Run();

  ExpectSuccess(result);
  EXPECT_LT(result.losses.back(), 0.7 * result.losses.front());
  EXPECT_EQ(result.weights.at(0), result.weights.at(1));
  EXPECT_EQ(result.weights.at(2), result.weights.at(3));
  const v1::StepReport& last = result.reports.at(0).back();
  EXPECT_TRUE(last.compressed());
  EXPECT_GT(last.bytes().delta_rows(), 0);
}

TEST(TrainingTest, TheGradientNormDoesNotJumpWhenGradientsAreCompressed) {
  const RunResult result = Job(2, 2, CompressedOverrides()).Run();

  ExpectNormDoesNotJump(result, /*compressed_from=*/10);
}

TEST(TrainingTest, AReportCoversTheStepsSinceTheLastOne) {
  const RunResult result = Job(2, 2, {"train.report_every=8"}).Run();

  ExpectSuccess(result);
  ASSERT_EQ(result.reports.size(), 4u);
  for (const auto& [rank, reports] : result.reports) {
    ASSERT_EQ(reports.size(), 3u) << rank;
    const int64_t last_steps[] = {7, 15, 19};
    const int64_t steps[] = {8, 8, 4};
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(reports[i].step(), last_steps[i]);
      EXPECT_EQ(reports[i].steps(), steps[i]);
      EXPECT_EQ(reports[i].tokens(), steps[i] * 8 * 8);
      EXPECT_NE(reports[i].weights_hash(), 0u);  // verified every 3 steps
    }
  }
}

TEST(TrainingTest, AReportDividesItsTimeIntoPhases) {
  Job job(2, 2, {"train.report_every=5", "compression.activations=int(8)"});
  job.use_tcp = true;

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const auto& [rank, reports] : result.reports) {
    for (const v1::StepReport& report : reports) {
      const v1::PhaseSeconds& phases = report.phases();
      EXPECT_GT(phases.forward(), 0) << rank;
      EXPECT_GT(phases.backward(), 0) << rank;
      EXPECT_GT(phases.optimizer(), 0) << rank;
      EXPECT_GT(phases.data(), 0) << rank;
      EXPECT_GT(phases.receive_wait(), 0) << rank;
      EXPECT_GT(phases.encode(), 0) << rank;
      EXPECT_GT(phases.decode(), 0) << rank;
      EXPECT_GT(phases.send_wait(), 0) << rank;
      EXPECT_NEAR(phases.forward() + phases.backward(),
                  report.compute_seconds(), 1e-9);
      EXPECT_NEAR(phases.receive_wait(), report.wait_seconds(), 1e-9);
      EXPECT_LE(phases.optimizer(), report.reduce_seconds());
      EXPECT_LE(report.compute_seconds() + report.wait_seconds() +
                    report.reduce_seconds() + phases.data(),
                report.step_seconds());
      ASSERT_EQ(report.links_size(), 1) << rank;
      EXPECT_GT(report.links(0).round_trip_seconds(), 0) << rank;
    }
  }
}

TEST(TrainingTest, TheSameSeedGivesTheSameBytesOverLoopbackAndTcp) {
  using Recordings = std::map<std::string, std::shared_ptr<Recording>>;
  Mutex mutex;
  const auto run = [&](bool use_tcp, Recordings* recordings) {
    Job job(2, 2, CompressedOverrides());
    job.use_tcp = use_tcp;
    job.decorate = [&](std::unique_ptr<Channel> channel, int rank, int peer,
                       int index) {
      RecordingOptions options;
      options.only_first_transmissions = true;
      auto recording = std::make_shared<Recording>(options);
      MutexLock lock(&mutex);
      (*recordings)[absl::StrCat(rank, "->", peer, "/", index)] = recording;
      return RecordChannel(std::move(channel), recording);
    };
    return job.Run();
  };

  Recordings first_frames;
  Recordings second_frames;
  Recordings tcp_frames;
  const RunResult first = run(false, &first_frames);
  const RunResult second = run(false, &second_frames);
  const RunResult tcp = run(true, &tcp_frames);

  ExpectSame(first, second);
  ExpectSame(first, tcp);
  ASSERT_EQ(first_frames.size(), tcp_frames.size());
  for (const auto& [name, recording] : first_frames) {
    EXPECT_GT(recording->sent().num_messages, 0) << name;
    EXPECT_EQ(recording->sent().checksum, second_frames[name]->sent().checksum)
        << name;
    EXPECT_EQ(recording->sent().checksum, tcp_frames[name]->sent().checksum)
        << name;
  }
}

TEST(TrainingTest, NcclCarriesTheSameBytesAsTcp) {
  FakeGpu gpu;
  const auto context = NcclContext::Create(gpu.nccl(), gpu.cuda(), 0).value();
  std::vector<std::string> over_nccl = CompressedOverrides();
  over_nccl.push_back("network.transport=nccl");
  Job job(2, 2, over_nccl);
  job.use_tcp = true;
  job.make_nccl = [&] {
    NcclChannelOptions options;
    options.inline_bytes = 128;  // this model's tensors are small
    return NcclUpgrade(context.get(), options);
  };
  Job plain(2, 2, CompressedOverrides());
  plain.use_tcp = true;

  const RunResult tcp = plain.Run();
  const RunResult nccl = job.Run();

  ExpectSame(tcp, nccl);
  EXPECT_GT(gpu.counts().bytes_moved, 0);
  EXPECT_TRUE(
      context->disposal()->Await(Deadline::After(std::chrono::seconds(30))));
  EXPECT_EQ(gpu.counts().num_alive, 0);
  EXPECT_THAT(gpu.counts().misuses, IsEmpty());
}

TEST(TrainingTest, AWorkerWithoutNcclSaysSoAndWhatToDo) {
  Job job(2, 1, {"network.transport=nccl"});
  job.make_nccl = [] {
    return absl::FailedPreconditionError("there is no libnccl.so.2");
  };

  const RunResult result = job.Run();

  const v1::AssignmentDone& done = result.done.at(1);
  EXPECT_EQ(done.error_code(),
            static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(done.error_message(),
            "this worker cannot use NCCL: there is no libnccl.so.2; or train "
            "with network.transport: tcp");
}

TEST(TrainingTest, FaultsBelowTheFramesChangeNothing) {
  const RunResult undisturbed = Job(2, 2, CompressedOverrides()).Run();
  Job disturbed(2, 2, CompressedOverrides());
  disturbed.decorate = [](std::unique_ptr<Channel> channel, int rank, int peer,
                          int index) -> std::unique_ptr<Channel> {
    FaultOptions options;
    options.seed = static_cast<uint64_t>(rank * 1000 + peer * 10 + index);
    options.loss = 0.01;
    options.repeat = 0.01;
    options.reorder = 0.01;
    options.corrupt = 0.01;
    return FaultyChannel::Create(std::move(channel), options);
  };

  const RunResult healed = disturbed.Run();

  ExpectSame(undisturbed, healed);
  v1::FaultCounters found;
  for (const auto& [rank, reports] : healed.reports) {
    const v1::FaultCounters& faults = reports.back().faults();
    found.set_frames_resent(found.frames_resent() + faults.frames_resent());
    found.set_bad_checksums(found.bad_checksums() + faults.bad_checksums());
    found.set_gaps(found.gaps() + faults.gaps());
  }
  EXPECT_GT(found.frames_resent(), 0);
  EXPECT_GT(found.bad_checksums(), 0);
  EXPECT_GT(found.gaps(), 0);
}

/// Changes one bit of the youngest record, which is not visited soon.
void DamageARecord(int64_t step, StateStore* records) {
  uint64_t key = 0;
  RecordPtr youngest;
  records->ForEach([&](uint64_t found, const RecordPtr& record) {
    key = found;
    youngest = record;
    return true;
  });
  auto damaged = NewRecord(youngest->version, youngest->values.size());
  std::copy(youngest->values.span().begin(), youngest->values.span().end(),
            damaged->values.data());
  damaged->values.data()[0] ^= 1;
  records->Stage(static_cast<uint32_t>(step), key, damaged);
}

TEST(TrainingTest, ARecordThatDiffersBetweenTheEndsStopsTheJob) {
  Job job(2, 1, CompressedOverrides());
  job.after_step = [](int rank, int64_t step, Training* training) {
    if (rank == 1 && step == 6) {
      DamageARecord(step, training->received_records());
    }
  };

  const RunResult result = job.Run();

  for (int rank : {0, 1}) {
    const v1::AssignmentDone& done = result.done.at(rank);
    EXPECT_NE(done.error_code(), 0) << rank;
    EXPECT_LE(done.steps(), 9) << rank;
  }
  EXPECT_THAT(result.done.at(1).error_message(),
              HasSubstr("the activation state of the boundary between stages 0 "
                        "and 1 differs between its two ends after step 8"));
}

TEST(TrainingTest, TheStateAfterTheLastStepIsComparedToo) {
  std::vector<std::string> overrides = CompressedOverrides();
  overrides.push_back("train.steps=20");
  Job job(2, 1, overrides);
  job.after_step = [](int rank, int64_t step, Training* training) {
    if (rank == 1 && step == 18) {
      DamageARecord(step, training->received_records());
    }
  };

  const RunResult result = job.Run();

  EXPECT_THAT(result.done.at(1).error_message(), HasSubstr("after step 20"));
}

TEST(TrainingTest, AWeightThatDiffersBetweenReplicasStopsTheJob) {
  Job job(2, 2, {});  // verified every 3 steps
  job.before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                          int mb) {
    if (rank == 3 && step == 7 && mb == 0) {
      for (const ParameterSegment& segment : stage->parameters().segments) {
        if (segment.name == "layers.2.shift") {
          stage->weights()[static_cast<size_t>(segment.offset)] += 1e-3f;
        }
      }
    }
    return absl::OkStatus();
  };

  const RunResult result = job.Run();

  for (int rank : {2, 3}) {
    EXPECT_EQ(result.done.at(rank).steps(), 8) << rank;
    EXPECT_THAT(result.done.at(rank).error_message(),
                AllOf(HasSubstr("differ after step 9"),
                      HasSubstr("\"layers.2.shift\" (replica 0 against "
                                "replica 1)")));
    EXPECT_FALSE(result.done.at(rank).is_consequence());
  }
}

TEST(TrainingTest, ANonFiniteGradientSkipsTheStepEverywhere) {
  for (const char* kind : {"adamw", "onebit_lamb"}) {
    std::vector<std::string> overrides = CompressedOverrides();
    overrides.push_back(absl::StrCat("train.optimizer.kind=", kind));
    overrides.push_back("train.steps=30");
    if (std::string(kind) == "adamw") {
      overrides.push_back("compression.gradients=none");
    }
    Job job(2, 2, overrides);
    job.before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                            int mb) {
      if (rank == 3 && step == 20 && mb == 1) {
        stage->gradients()[5] = std::numeric_limits<float>::quiet_NaN();
      }
      return absl::OkStatus();
    };

    const RunResult result = job.Run();

    ExpectSuccess(result);
    for (const auto& [rank, reports] : result.reports) {
      for (const v1::StepReport& report : reports) {
        EXPECT_EQ(report.skipped_steps(), report.step() == 20 ? 1 : 0)
            << kind << ", rank " << rank << ", step " << report.step();
      }
    }
    EXPECT_TRUE(std::isfinite(result.losses.back()));
    EXPECT_EQ(result.weights.at(2), result.weights.at(3));
  }
}

TEST(TrainingTest, AFailingWorkerEndsAllOthersWithTheCause) {
  Job job(2, 2, {});
  job.before_forward = [](int rank, ElementwiseStage*, int64_t step, int mb) {
    return rank == 2 && step == 5 && mb == 1
               ? absl::ResourceExhaustedError("device memory is exhausted")
               : absl::OkStatus();
  };

  const RunResult result = job.Run();

  EXPECT_THAT(result.done.at(2).error_message(),
              HasSubstr("stage 1, replica 0, step 6"));
  EXPECT_THAT(result.done.at(2).error_message(),
              HasSubstr("device memory is exhausted"));
  EXPECT_FALSE(result.done.at(2).is_consequence());
  for (int rank : {0, 1, 3}) {
    EXPECT_NE(result.done.at(rank).error_code(), 0) << rank;
    EXPECT_TRUE(result.done.at(rank).is_consequence())
        << result.done.at(rank).error_message();
  }
}

TEST(TrainingTest, AStopAskedOfOneWorkerEndsAllAtTheSameStep) {
  Job job(2, 2, {"train.steps=5000"});
  job.after_step = [](int rank, int64_t step, Training* training) {
    if (rank == 3 && step == 7) training->RequestStop();
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const auto& [rank, done] : result.done) {
    EXPECT_EQ(done.steps(), result.done.at(0).steps()) << rank;
    EXPECT_TRUE(done.stopped_early());
  }
  EXPECT_LT(result.done.at(0).steps(), 100);
  EXPECT_FALSE(result.done.at(0).model_path().empty());
}

TEST(TrainingTest, AChangeMayBePreparedBeforeTheOneBeforeItIsInForce) {
  Job job(2, 1, {"train.steps=12"});
  job.assignment().mutable_tuning()->set_revision(1);
  const auto tuning = [](uint32_t revision, const std::string& codec) {
    v1::Tuning made;
    made.set_revision(revision);
    v1::BoundaryTuning* boundary = made.add_boundaries();
    boundary->set_activations(codec);
    boundary->set_activation_gradients(codec);
    made.set_gradients("none");
    made.set_saved_activations("none");
    made.set_straggler_policy("none");
    return made;
  };
  job.after_step = [&](int, int64_t step, Training* training) {
    if (step == 3) {
      EXPECT_TRUE(training->PrepareTuning(tuning(2, "int(8)")).ok());
      training->DecideTuning(2, true);
      EXPECT_TRUE(training->PrepareTuning(tuning(3, "int(4)")).ok());
    }
    if (step == 7) training->DecideTuning(3, true);
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const auto& [rank, reports] : result.reports) {
    ASSERT_EQ(reports.size(), 12u) << rank;
    for (const v1::StepReport& report : reports) {
      EXPECT_EQ(report.tuning_revision(), report.step() < 5   ? 1u
                                          : report.step() < 9 ? 2u
                                                              : 3u)
          << "rank " << rank << ", step " << report.step();
    }
  }
}

TEST(TrainingTest, AReplicaIsSlowFromTheStepOnThatAChangeHoldsFor) {
  Job job(1, 2, {"train.steps=12"});
  v1::Tuning first;
  first.set_revision(1);
  first.set_gradients("none");
  first.set_saved_activations("none");
  first.set_straggler_policy("none");
  first.set_inject("none");
  *job.assignment().mutable_tuning() = first;
  job.after_step = [&](int, int64_t step, Training* training) {
    if (step != 3) return;
    v1::Tuning next = first;
    next.set_revision(2);
    next.set_inject("slow:rank=9,x=2");
    EXPECT_THAT(std::string(training->PrepareTuning(next).message()),
                HasSubstr("replica 9 of 2"));
    next.set_inject("input:rank=1,by=100ms");
    EXPECT_TRUE(training->PrepareTuning(next).ok());
    training->DecideTuning(2, /*commit=*/true);
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  double quickest_before = 1e9;
  int num_after = 0;
  for (const v1::StepReport& report : result.reports.at(1)) {
    if (report.tuning_revision() == 1) {
      quickest_before = std::min(quickest_before, report.step_seconds());
    } else {
      ++num_after;
      EXPECT_GE(report.step_seconds(), 0.1) << "step " << report.step();
    }
  }
  EXPECT_LT(quickest_before, 0.1);
  EXPECT_GE(num_after, 5);
}

TEST(TrainingTest, AJobThatCompressesMayTurnToSixteenBitsAndBack) {
  std::vector<std::string> overrides = CompressedOverrides();
  overrides.push_back("model.width=256");  // gradients outweigh their frames
  Job job(2, 2, overrides);
  v1::Tuning first;
  first.set_revision(1);
  first.set_gradients("sign(block=0)");
  first.set_saved_activations("none");
  first.set_straggler_policy("none");
  v1::BoundaryTuning* boundary = first.add_boundaries();
  boundary->set_activations("int(8)");
  boundary->set_activation_gradients("int(8)");
  *job.assignment().mutable_tuning() = first;
  const auto change = [&](uint32_t revision, const std::string& codec,
                          Training* training) {
    v1::Tuning next = first;
    next.set_revision(revision);
    next.set_gradients(codec);
    const absl::Status prepared = training->PrepareTuning(next);
    if (prepared.ok()) training->DecideTuning(revision, /*commit=*/true);
    return prepared;
  };
  job.after_step = [&](int, int64_t step, Training* training) {
    if (step == 20) {
      EXPECT_TRUE(change(2, "cast(bf16)", training).ok());
    } else if (step == 30) {
      EXPECT_TRUE(change(3, "sign(block=0)", training).ok());
    } else if (step == 40) {
      EXPECT_THAT(std::string(change(4, "none", training).message()),
                  HasSubstr("take cast(bf16)"));
    }
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  EXPECT_LT(result.losses.back(), result.Mean(20));
  for (const auto& [rank, reports] : result.reports) {
    const auto sent = [reports = &reports](size_t from, size_t to) {
      return (*reports)[to].bytes().gradient_wire() -
             (*reports)[from].bytes().gradient_wire();
    };
    EXPECT_GT(sent(22, 29), 3 * sent(12, 19)) << rank;
    EXPECT_GT(sent(22, 29), 3 * sent(50, 57)) << rank;
  }
  EXPECT_EQ(result.weights.at(0), result.weights.at(1));
}

TEST(TrainingTest, ACancelWakesEveryWait) {
  Job job(2, 1, {});
  Training* upstream = nullptr;
  Mutex mutex;
  job.after_step = [&](int rank, int64_t step, Training* training) {
    MutexLock lock(&mutex);
    if (rank == 0) upstream = training;
  };
  job.before_forward = [&](int rank, ElementwiseStage*, int64_t step, int mb) {
    // The first stage waits for this one's gradients when it is cancelled.
    if (rank == 1 && step == 4 && mb == 0) {
      MutexLock lock(&mutex);
      upstream->Cancel(absl::CancelledError("cancelled by the test"));
    }
    return absl::OkStatus();
  };

  const RunResult result = job.Run();

  EXPECT_THAT(result.done.at(0).error_message(),
              HasSubstr("cancelled by the test"));
  EXPECT_NE(result.done.at(1).error_code(), 0);
}

TEST(TrainingTest, ValidationDoesNotDependOnThePartition) {
  const RunResult whole = Job(1, 1, {"train.steps=5"}).Run();
  const RunResult split = Job(4, 1, {"train.steps=5"}).Run();

  ASSERT_EQ(whole.validation.size(), 1);
  ASSERT_EQ(split.validation.size(), 1);
  // Activations travel in bf16 for evaluation.
  EXPECT_NEAR(split.validation.at(3), whole.validation.at(0),
              2e-2 * whole.validation.at(0));
}

}  // namespace
}  // namespace deltapipe
