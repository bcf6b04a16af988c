// A job whose ranks are threads of this process: plans of the coordinator's
// scheduler, the worker's engine, real frames over loopback or TCP.
#ifndef DELTAPIPE_TESTS_INTEGRATION_TRAINING_JOB_H_
#define DELTAPIPE_TESTS_INTEGRATION_TRAINING_JOB_H_

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/image_model.h"
#include "base/mutex.h"
#include "coordinator/background/checkpoint_book.h"
#include "coordinator/launch/estimate_profile.h"
#include "coordinator/schedule/build_plan.h"
#include "coordinator/spec/job_spec.h"
#include "gtest/gtest.h"
#include "worker/engine/training.h"
#include "worker/stage/testing/elementwise_stage.h"
#include "worker/transport/loopback/loopback_transport.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {

struct RunResult {
  std::vector<double> losses;                 // mean over the replicas, by step
  std::map<int, v1::AssignmentDone> done;     // by rank
  std::map<int, std::vector<float>> weights;  // by rank
  std::map<int, std::vector<v1::StepReport>> reports;  // by rank
  std::map<int, double> validation;                    // by rank
  std::vector<v1::ValidationReport> validations;       // each rank's own
  std::map<int, v1::AssignmentReady> ready;            // by rank
  double Mean(int64_t step) const { return losses[static_cast<size_t>(step)]; }
};

class Job {
 public:
  Job(int stages, int replicas, const std::vector<std::string>& overrides) {
    const std::string folder = ::testing::TempDir();
    const std::string corpus = folder + "/training_test_corpus.txt";
    std::string text;
    for (int i = 0; i < 3000; ++i) {
      text.push_back(static_cast<char>('a' + (i * i / 5 + i % 7) % 26));
    }
    EXPECT_TRUE(WriteFileAtomically(corpus, text).ok());
    std::vector<std::string> all = {
        "name=job",
        "data.path=" + corpus,
        "data.validation=0.2",
        "model.layers=4",
        "model.width=8",
        "model.heads=2",
        "model.context=8",
        "train.batch=16",
        "train.microbatch=2",
        "train.clip_norm=0.5",
        "train.verify_every=3",
        "train.optimizer.kind=sgd",
        "train.optimizer.learning_rate=0.05",
        "compression.activations=none",
        "compression.activation_gradients=none",
        "compression.gradients=none",
        "train.steps=20",
        absl::StrCat("parallel.stages=", stages),
        absl::StrCat("parallel.replicas=", replicas)};
    std::vector<std::string> groups = {
        "name=groups", "model.kind=synthetic",
        "model.synthetic.parameters_per_stage=1"};
    for (const std::string& text : overrides) {
      (IsOfGroups(text) ? groups : all).push_back(text);
    }
    auto spec = ParseJobSpec("{}", "test", all);
    EXPECT_TRUE(spec.ok()) << spec.status();
    // Parameters of an ElementwiseStage are none of the spec's model.
    const auto grouped = ParseJobSpec("{}", "groups", groups);
    EXPECT_TRUE(grouped.ok()) << grouped.status();
    *spec->mutable_train()->mutable_optimizer()->mutable_groups() =
        grouped->train().optimizer().groups();
    PlanInputs inputs;
    inputs.spec = *spec;
    const bool is_image = IsImageModel(spec->model().kind());
    if (is_image) inputs.profile = EstimateProfile(*spec);
    for (int layer = 0; layer < (is_image ? 0 : 4); ++layer) {
      v1::LayerProfile* profile = inputs.profile.add_layers();
      profile->set_forward_seconds(1e-3);
      profile->set_backward_seconds(2e-3);
      profile->set_parameters(16);
      if (spec->model().tied() == "on" && (layer == 0 || layer == 3)) {
        profile->set_tied_parameters(8);
      }
      profile->set_output_elements(64);
    }
    inputs.train_samples = 300;
    auto planned = BuildPlan(inputs);
    EXPECT_TRUE(planned.ok()) << planned.status();
    assignment_.set_job_id("job");
    assignment_.set_generation(3);
    *assignment_.mutable_spec() = *spec;
    *assignment_.mutable_plan() = planned->plan;
    assignment_.set_run_folder(folder + "/run");
    assignment_.set_wait_seconds(20);
    num_ranks_ = stages * replicas;
    replicas_ = replicas;
  }

  std::function<std::unique_ptr<Channel>(std::unique_ptr<Channel>, int rank,
                                         int peer, int index)>
      decorate;
  std::function<absl::Status(int rank, ElementwiseStage*, int64_t step, int mb)>
      before_forward;
  std::function<void(int rank, int64_t step, Training*)> after_step;
  /// In place of an ElementwiseStage.
  std::function<absl::StatusOr<std::unique_ptr<Stage>>(const v1::JobSpec&,
                                                       const v1::StagePlan&)>
      make_stage;
  /// Changes what one rank is told.
  std::function<void(int rank, v1::Assignment*)> adjust;
  int64_t bucket_elements_per_rank = TrainingOptions().bucket_elements_per_rank;
  bool use_tcp = false;
  /// Of the workers, for network.transport: nccl.
  MakeChannelUpgrade make_nccl;
  /// Every rank's messages to the coordinator, which is played here: it answers
  /// parts of checkpoints with their manifest.
  bool takes_checkpoints = false;
  /// What a rank traces, if takes_checkpoints; from its thread, one at a time.
  std::function<void(int rank, const v1::StepTrace&)> on_trace;
  /// Told of each complete one, from some rank's thread.
  std::function<void(const CompleteCheckpoint&)> on_checkpoint;
  v1::Assignment& assignment() { return assignment_; }

  RunResult Run() {
    LoopbackNetwork network;
    std::vector<std::unique_ptr<Transport>> transports;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      auto transport = use_tcp ? CreateTcpTransport("127.0.0.1:0")
                               : network.CreateTransport();
      EXPECT_TRUE(transport.ok()) << transport.status();
      transports.push_back(*std::move(transport));
      v1::Peer* peer = assignment_.add_peers();
      peer->set_rank(rank);
      peer->set_stage(rank / replicas_);
      peer->set_replica(rank % replicas_);
      peer->set_worker_id(absl::StrCat("worker-", rank));
      peer->set_data_address(transports.back()->address());
    }
    RunResult result;
    Mutex mutex;
    CheckpointBookShape shape;
    shape.job_id = assignment_.job_id();
    shape.generation = assignment_.generation();
    shape.num_stages = num_ranks_ / replicas_;
    shape.num_replicas = replicas_;
    shape.keep = assignment_.spec().checkpoint().keep();
    shape.spec_json = "{}";
    CheckpointBook book(shape);
    book_ = &book;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      threads.emplace_back([&, rank] {
        RunRank(rank, transports[static_cast<size_t>(rank)].get(), &mutex,
                &result);
      });
    }
    for (std::thread& thread : threads) thread.join();
    result.losses.resize(
        static_cast<size_t>(assignment_.spec().train().steps()));
    for (const auto& [rank, reports] : result.reports) {
      for (const v1::StepReport& report : reports) {
        if (report.has_loss()) {
          result.losses[static_cast<size_t>(report.step())] +=
              report.loss() / replicas_;
        }
      }
    }
    assignment_.clear_peers();
    {
      // Their writers may still be telling of a checkpoint.
      MutexLock lock(&book_mutex_);
      running_.clear();
    }
    trainings_.clear();
    return result;
  }

 private:
  static bool IsOfGroups(const std::string& text) {
    return absl::StartsWith(text, "train.optimizer.groups");
  }

  void RunRank(int rank, Transport* transport, Mutex* mutex,
               RunResult* result) {
    Training* running = nullptr;
    TrainingOptions options;
    options.assignment = assignment_;
    options.assignment.set_rank(rank);
    if (adjust) adjust(rank, &options.assignment);
    options.transport = transport;
    options.bucket_elements_per_rank = bucket_elements_per_rank;
    options.make_stage = [&](const v1::Assignment& assignment)
        -> absl::StatusOr<std::unique_ptr<Stage>> {
      const v1::StagePlan& plan = assignment.plan().stages(rank / replicas_);
      if (make_stage) return make_stage(assignment.spec(), plan);
      auto stage = std::make_unique<ElementwiseStage>(
          assignment.spec(), plan.first_layer(), plan.end_layer());
      if (before_forward) {
        stage->before_forward = [this, rank, raw = stage.get()](int64_t step,
                                                                int mb) {
          return before_forward(rank, raw, step, mb);
        };
      }
      return {std::move(stage)};
    };
    options.make_nccl = make_nccl;
    int index = 0;
    if (decorate) {
      options.decorate = [&](std::unique_ptr<Channel> channel, int peer) {
        return decorate(std::move(channel), rank, peer, index++);
      };
    }
    options.on_step = [&](const v1::StepReport& report) {
      {
        MutexLock lock(mutex);
        result->reports[rank].push_back(report);
      }
      if (after_step) after_step(rank, report.step(), running);
    };
    options.on_validation = [&](const v1::ValidationReport& report) {
      MutexLock lock(mutex);
      result->validation[rank] = report.loss();
      result->validations.push_back(report);
    };
    if (takes_checkpoints) {
      options.send = [this, rank](v1::WorkerMessage message) {
        OnMessage(rank, message);
      };
    }
    // Lives until all ranks are done: another rank may be about to cancel it.
    auto owned = std::make_unique<Training>(std::move(options));
    Training& training = *owned;
    running = &training;
    {
      MutexLock lock(mutex);
      trainings_.push_back(std::move(owned));
    }
    v1::AssignmentDone done;
    const absl::Status prepared = training.Prepare();
    if (prepared.ok()) {
      {
        MutexLock lock(mutex);
        result->ready[rank] = training.ready();
      }
      {
        MutexLock lock(&book_mutex_);
        running_.push_back(&training);
      }
      done = training.Run();
    } else {
      done.set_error_code(static_cast<int>(prepared.code()));
      done.set_error_message(std::string(prepared.message()));
    }
    MutexLock lock(mutex);
    result->done[rank] = done;
    if (prepared.ok()) {
      result->weights[rank].assign(training.weights().begin(),
                                   training.weights().end());
    }
  }

  void OnMessage(int rank, const v1::WorkerMessage& message) {
    MutexLock lock(&book_mutex_);
    if (message.has_shards()) {
      const auto commit = book_->AddPart(rank, message.shards(), "");
      if (!commit.has_value()) return;
      for (Training* training : running_) training->CommitCheckpoint(*commit);
    } else if (message.has_stored()) {
      const auto complete = book_->AddStored(rank, message.stored());
      if (complete.has_value() && on_checkpoint) on_checkpoint(*complete);
    } else if (message.has_trace() && on_trace) {
      on_trace(rank, message.trace());
    }
  }

  v1::Assignment assignment_;
  std::vector<std::unique_ptr<Training>> trainings_;
  Mutex book_mutex_;
  CheckpointBook* book_ = nullptr;
  std::vector<Training*> running_;
  int num_ranks_ = 0;
  int replicas_ = 1;
};

inline void ExpectSuccess(const RunResult& result) {
  for (const auto& [rank, done] : result.done) {
    EXPECT_EQ(done.error_code(), 0)
        << "rank " << rank << ": " << done.error_message();
  }
}

/// A job that is cut and copied trains as one worker does: in each of its
/// steps the loss is the same to 1e-5.
inline void ExpectLossesOfTheWhole(const RunResult& split,
                                   const RunResult& whole,
                                   const std::string& what) {
  ExpectSuccess(whole);
  ExpectSuccess(split);
  ASSERT_EQ(split.losses.size(), whole.losses.size()) << what;
  EXPECT_LT(whole.losses.back(), whole.losses.front()) << what;
  for (size_t step = 0; step < whole.losses.size(); ++step) {
    EXPECT_NEAR(split.losses[step], whole.losses[step],
                1e-5 * whole.losses[step])
        << what << ", step " << step;
  }
}

/// And on every rank the gradient's norm, to 1e-4; some were above `clip_norm`.
inline void ExpectNormsOfTheWhole(const RunResult& split,
                                  const RunResult& whole, double clip_norm,
                                  const std::string& what) {
  double largest = 0;
  for (size_t step = 0; step < whole.losses.size(); ++step) {
    const double norm = whole.reports.at(0)[step].gradient_norm();
    largest = std::max(largest, norm);
    for (const auto& [rank, reports] : split.reports) {
      EXPECT_NEAR(reports[step].gradient_norm(), norm, 1e-4 * norm)
          << what << ", rank " << rank << ", step " << step;
    }
  }
  EXPECT_GT(largest, clip_norm) << what;
}

/// The gradient's norm of a job that compresses from this step on, mean of five
/// steps before and after.
inline void ExpectNormDoesNotJump(const RunResult& result,
                                  size_t compressed_from) {
  ExpectSuccess(result);
  const std::vector<v1::StepReport>& reports = result.reports.at(0);
  double before = 0;
  double after = 0;
  for (size_t i = 0; i < 5; ++i) {
    const v1::StepReport& plain = reports[compressed_from - 5 + i];
    const v1::StepReport& compressed = reports[compressed_from + i];
    EXPECT_FALSE(plain.compressed());
    EXPECT_TRUE(compressed.compressed());
    before += plain.gradient_norm() / 5;
    after += compressed.gradient_norm() / 5;
  }
  EXPECT_LT(after, 1.3 * before);
  EXPECT_GT(after, 0.7 * before);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_TESTS_INTEGRATION_TRAINING_JOB_H_
