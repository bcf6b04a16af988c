#include "coordinator/metrics/testing/demo_job.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"

namespace deltapipe {
namespace {

constexpr int64_t kTotalSteps = 1000;
constexpr int64_t kRawBytes = 4199000;

double LossAt(int64_t step) {
  const auto at = static_cast<double>(step);
  return 1.4 + 3.8 * std::exp(-at / 80) + 0.06 * std::sin(at * 1.7) +
         0.04 * std::sin(at * 0.61);
}

/// Of one step.
void FillSaved(int stage, v1::SavedReport* saved) {
  saved->set_tensors(180);
  saved->set_shared(40);
  saved->set_raw_bytes(91000000);
  saved->set_unique_bytes(62000000);
  saved->set_packed_bytes(8100000);
  saved->set_passed_bytes(500000);
  saved->set_metadata_bytes(60000);
  saved->set_peak_bytes(int64_t{9400000} - int64_t{2000000} * stage);
  saved->set_scratch_peak_bytes(2100000);
  // The first stage holds the most micro-batches.
  if (stage == 0) saved->set_offloaded_peak_bytes(3300000);
  for (const auto& [name, value] :
       {std::pair<const char*, double>{"addmm", 0.034}, {"gelu", 0.021}}) {
    v1::SavedError* error = saved->add_errors();
    error->set_operator_(name);
    error->set_relative_error(value);
  }
}

}  // namespace

DemoJob::DemoJob(std::string id, int stages, int replicas, MetricSink* sink)
    : stages_(stages), replicas_(replicas), sink_(sink) {
  job_.set_id(std::move(id));
  job_.mutable_spec()->set_name(job_.id().substr(0, job_.id().rfind('-')));
  job_.mutable_spec()->mutable_train()->set_batch(32);
  job_.mutable_spec()->mutable_train()->set_steps(kTotalSteps);
  job_.set_state(v1::JOB_STATE_RUNNING);
  plan_.set_num_stages(stages);
  plan_.set_num_replicas(replicas);
  plan_.set_num_microbatches(4);
  plan_.set_predicted_step_seconds(0.05);
  for (int stage = 0; stage < stages; ++stage) {
    v1::StagePlan* planned = plan_.add_stages();
    planned->set_stage(stage);
    planned->set_forward_seconds(0.003);
    planned->set_backward_seconds(0.006);
  }
  for (int rank = 0; rank < stages * replicas; ++rank) {
    v1::JobMember* member = job_.add_members();
    member->set_rank(rank);
    member->set_worker_id(absl::StrCat("worker-", rank + 1));
  }
}

void DemoJob::AddEvent(const std::string& kind, const std::string& text) {
  v1::JobEvent event;
  event.set_sequence(static_cast<int64_t>(events_.size()) + 1);
  event.set_time_millis(Clock::Real()->WallMillis());
  event.set_kind(kind);
  event.set_text(text);
  events_.push_back(std::move(event));
}

void DemoJob::Start() {
  job_.set_generation(job_.generation() + 1);
  step_ = job_.checkpoint_step();
  job_.set_step(step_);
  generation_steps_ = 0;
  Change(v1::JOB_STATE_RUNNING,
         absl::StrCat("trains on ", stages_ * replicas_, " workers"));
  sink_->JobStarted(job_, plan_);
}

void DemoJob::Change(v1::JobState state, const std::string& reason) {
  job_.set_state(state);
  job_.set_reason(reason);
  AddEvent("state", reason);
  sink_->JobChanged(job_);
}

void DemoJob::Restart() {
  job_.set_restarts(job_.restarts() + 1);
  sink_->WentBack(job_.id(), kWorkerLost);
  AddEvent("restart", absl::StrCat("worker-2 was silent for 10 s: generation ",
                                   job_.generation() + 1, " goes on from step ",
                                   job_.checkpoint_step()));
  Start();
}

void DemoJob::FindStraggler() {
  leaves_out_ = true;
  v1::StragglerAnalysis analysis;
  analysis.set_step(step_ - 1);
  analysis.set_step_seconds(0.052);
  analysis.set_ideal_seconds(0.04);
  for (int rank = 0; rank < stages_ * replicas_; ++rank) {
    analysis.add_scores(rank + 1 < stages_ * replicas_ ? 1.02 : 1.28);
  }
  analysis.set_best_fix_stage(stages_ - 1);
  analysis.set_best_fix_replica(replicas_ - 1);
  analysis.set_best_fix_seconds(0.011);
  v1::Straggler* found = analysis.add_stragglers();
  found->set_stage(stages_ - 1);
  found->set_replica(replicas_ - 1);
  found->set_worker_id(absl::StrCat("worker-", stages_ * replicas_));
  found->set_cause("compute");
  found->set_slowdown(1.6);
  found->set_seconds_lost_per_step(0.011);
  found->set_since_step(step_ - 1);
  sink_->StragglersJudged(job_.id(), analysis);
}

void DemoJob::Checkpoint() {
  job_.set_checkpoint_step(step_);
  AddEvent("checkpoint",
           absl::StrCat("checkpoint of step ", step_, ": 38.2 MB in 0.4 s"));
  sink_->CheckpointCommitted(job_.id(), step_, 38200000, 0.4, 0.01);
  sink_->JobChanged(job_);
}

v1::StepReport DemoJob::Report(int stage, int replica, double seconds,
                               double compute) const {
  v1::StepReport report;
  report.set_job_id(job_.id());
  report.set_generation(job_.generation());
  report.set_step(step_);
  report.set_steps(1);
  report.set_has_loss(stage == stages_ - 1);
  report.set_loss(LossAt(step_));
  report.set_tokens(32 * 128 / replicas_);
  report.set_step_seconds(seconds);
  report.set_compute_seconds(compute);
  report.set_reduce_seconds(0.12 * seconds);
  report.set_wait_seconds(
      std::max(0.0, seconds - compute - 0.12 * seconds - 0.04 * seconds));
  v1::PhaseSeconds* phases = report.mutable_phases();
  phases->set_forward(compute / 3);
  phases->set_backward(compute - compute / 3);
  phases->set_optimizer(0.02 * seconds);
  phases->set_receive_wait(report.wait_seconds());
  phases->set_send_wait(0.01 * seconds);
  phases->set_encode(0.03 * seconds);
  phases->set_decode(0.02 * seconds);
  phases->set_data(0.005 * seconds);
  report.set_memory_bytes(int64_t{612000000} + int64_t{20000000} * stage);
  report.set_tuning_revision(1);
  report.add_microbatches_by_delay(plan_.num_microbatches());
  if (leaves_out_) {
    report.add_microbatches(replica == 0 ? 3 : 4);
    report.set_dropped_samples(replica == 0 ? 32 / replicas_ / 4 : 0);
    report.mutable_stragglers()->set_tau_seconds(0.045);
    report.mutable_stragglers()->set_predicted_drop_share(0.12);
    report.mutable_stragglers()->set_realised_drop_share(0.125);
    report.mutable_stragglers()->set_predicted_speedup(1.07);
    report.mutable_stragglers()->set_realised_speedup(1.06);
  }
  if (packs_) {
    FillSaved(stage, report.mutable_saved());
    report.set_loss_scale(65536);
  }
  const int64_t reports = generation_steps_ + 1;
  if (replicas_ > 1) {
    report.mutable_bytes()->set_gradient_raw(reports * 3500000);
    report.mutable_bytes()->set_gradient_wire(reports * 110000);
  }
  if (damages_frames_ && stage == stages_ - 1 && replica == replicas_ - 1) {
    report.mutable_faults()->set_frames_resent(2);
    report.mutable_faults()->set_bad_checksums(1);
    report.mutable_faults()->set_gaps(1);
    report.mutable_faults()->set_refused(1);
  }
  report.mutable_bytes()->set_other_wire(reports * 900);
  report.mutable_bytes()->set_state_bytes(17000000);
  report.mutable_bytes()->set_delta_rows(reports * 30);
  report.mutable_bytes()->set_value_rows(reports * 2);
  for (const bool is_gradient : {false, true}) {
    const int boundary = is_gradient ? stage - 1 : stage;
    if (boundary < 0 || boundary >= stages_ - 1) continue;
    v1::LinkReport* link = report.add_links();
    link->set_boundary(boundary);
    link->set_is_gradient(is_gradient);
    link->set_codec(is_gradient ? "int(8)" : "delta(int(4),first=cast(bf16))");
    link->set_raw_bytes(reports * kRawBytes);
    link->set_wire_bytes(reports * (is_gradient ? 1060000 : 560000));
    link->set_send_seconds(static_cast<double>(reports) * 0.015);
    link->set_round_trip_seconds(0.0004);
    link->set_relative_error(is_gradient ? 0.0041 : 0.0236);
  }
  return report;
}

void DemoJob::Step(double seconds, double slowness) {
  for (int stage = 0; stage < stages_; ++stage) {
    for (int replica = 0; replica < replicas_; ++replica) {
      const bool is_slow = stage == stages_ - 1 && replica == replicas_ - 1;
      const double compute = (is_slow ? slowness : 1) * 0.4 * seconds;
      sink_->WorkerReported(job_.id(), stage, replica,
                            Report(stage, replica, seconds, compute));
    }
  }
  v1::StepSummary summary;
  summary.set_step(step_);
  summary.set_total_steps(kTotalSteps);
  summary.set_loss(LossAt(step_));
  summary.set_gradient_norm(0.8);
  summary.set_learning_rate(3e-3);
  summary.set_step_seconds(seconds);
  summary.set_tokens_per_second(32 * 128 / seconds);
  summary.set_activation_raw_bytes((generation_steps_ + 1) * kRawBytes);
  summary.set_activation_wire_bytes((generation_steps_ + 1) * 810000);
  summary.set_gradient_raw_bytes((generation_steps_ + 1) * 7000000);
  summary.set_gradient_wire_bytes((generation_steps_ + 1) * 220000);
  sink_->StepCompleted(job_.id(), summary);
  if (step_ % 100 == 99) {
    AddEvent("validation", absl::StrCat("validation loss ", LossAt(step_),
                                        " after step ", step_ + 1));
    v1::StepSummary validation;
    validation.set_step(step_);
    validation.set_validation_loss(LossAt(step_) + 0.02);
    validation.set_validation_accuracy(std::exp(-LossAt(step_)));
    sink_->Validated(job_.id(), validation);
  }
  ++step_;
  ++generation_steps_;
  job_.set_step(step_);
  job_.set_furthest_step(std::max(job_.furthest_step(), step_));
}

}  // namespace deltapipe
