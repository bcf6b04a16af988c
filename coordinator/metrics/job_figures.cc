#include "coordinator/metrics/job_figures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "coordinator/metrics/straggler_score.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

/// Upper bounds of the step time's histogram, in seconds.
constexpr double kStepBounds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                  1,     2.5,  5,     10,   30,  60,   120};
/// Steps over which the time left is estimated.
constexpr size_t kEtaSteps = 20;
/// The weight of a report in the mean that stragglers are judged by.
constexpr double kPaceWeight = 0.2;

double Seconds(int64_t from_millis, int64_t to_millis) {
  return to_millis > from_millis
             ? static_cast<double>(to_millis - from_millis) / 1e3
             : 0;
}

double Share(double part, double whole) {
  return whole > 0 ? std::min(1.0, std::max(0.0, part / whole)) : 0;
}

void Observe(double seconds, int64_t count, v1::Histogram* histogram) {
  int bucket = 0;
  while (bucket < histogram->bounds_size() &&
         seconds > histogram->bounds(bucket)) {
    ++bucket;
  }
  histogram->set_counts(bucket, histogram->counts(bucket) + count);
  histogram->set_sum(histogram->sum() + seconds * static_cast<double>(count));
}

/// `base` plus the counts that the report holds.
void SetTotals(const v1::RankMetrics& base, const v1::StepReport& report,
               v1::RankMetrics* rank) {
  const v1::ByteCounters& bytes = report.bytes();
  rank->set_gradient_raw_bytes(base.gradient_raw_bytes() +
                               bytes.gradient_raw());
  rank->set_gradient_wire_bytes(base.gradient_wire_bytes() +
                                bytes.gradient_wire());
  rank->set_other_wire_bytes(base.other_wire_bytes() + bytes.other_wire() +
                             bytes.evaluation_wire());
  rank->set_delta_rows(base.delta_rows() + bytes.delta_rows());
  rank->set_value_rows(base.value_rows() + bytes.value_rows());
  const v1::FaultCounters& was = base.faults();
  const v1::FaultCounters& is = report.faults();
  v1::FaultCounters* sum = rank->mutable_faults();
  sum->set_frames_resent(was.frames_resent() + is.frames_resent());
  sum->set_bad_checksums(was.bad_checksums() + is.bad_checksums());
  sum->set_gaps(was.gaps() + is.gaps());
  sum->set_keyframes(was.keyframes() + is.keyframes());
  sum->set_refused(was.refused() + is.refused());
}

/// Bounds what figures and series hold of one worker.
constexpr size_t kMaxSavedErrors = 20;

/// Those with the largest errors, no number being the largest of all.
void SetErrors(const v1::SavedReport& report, v1::SavedReport* total) {
  std::vector<v1::SavedError> errors(report.errors().begin(),
                                     report.errors().end());
  const auto rank_of = [](const v1::SavedError& error) {
    return std::isnan(error.relative_error())
               ? std::numeric_limits<double>::infinity()
               : error.relative_error();
  };
  std::stable_sort(errors.begin(), errors.end(),
                   [&](const v1::SavedError& a, const v1::SavedError& b) {
                     return rank_of(a) > rank_of(b);
                   });
  total->clear_errors();
  std::set<std::string> seen;
  for (const v1::SavedError& error : errors) {
    if (seen.size() == kMaxSavedErrors) break;
    // A series has one value.
    if (seen.insert(error.operator_()).second) *total->add_errors() = error;
  }
}

/// Counts are of the report's steps alone.
void AddPhases(const v1::StepReport& report, RankPhases* total) {
  const v1::PhaseSeconds& more = report.phases();
  v1::PhaseSeconds& sum = total->phases;
  sum.set_forward(sum.forward() + more.forward());
  sum.set_backward(sum.backward() + more.backward());
  sum.set_optimizer(sum.optimizer() + more.optimizer());
  sum.set_receive_wait(sum.receive_wait() + more.receive_wait());
  sum.set_send_wait(sum.send_wait() + more.send_wait());
  sum.set_encode(sum.encode() + more.encode());
  sum.set_decode(sum.decode() + more.decode());
  sum.set_data(sum.data() + more.data());
  // Where updates go on beside the computation they may take longer than what
  // the compute thread waits for them.
  total->reduce_seconds +=
      std::max(0.0, report.reduce_seconds() - more.optimizer());
}

/// Counts are of the report's steps alone; peaks are its own.
void AddSaved(const v1::SavedReport& report, v1::SavedReport* total) {
  total->set_tensors(total->tensors() + report.tensors());
  total->set_shared(total->shared() + report.shared());
  total->set_not_finite(total->not_finite() + report.not_finite());
  total->set_raw_bytes(total->raw_bytes() + report.raw_bytes());
  total->set_unique_bytes(total->unique_bytes() + report.unique_bytes());
  total->set_packed_bytes(total->packed_bytes() + report.packed_bytes());
  total->set_passed_bytes(total->passed_bytes() + report.passed_bytes());
  total->set_metadata_bytes(total->metadata_bytes() + report.metadata_bytes());
  total->set_peak_bytes(report.peak_bytes());
  total->set_scratch_peak_bytes(report.scratch_peak_bytes());
  total->set_offloaded_peak_bytes(report.offloaded_peak_bytes());
  // Most reports have no probe in their steps.
  if (!report.errors().empty()) SetErrors(report, total);
}

}  // namespace

JobFigures::JobFigures(const v1::Job& job) {
  metrics_.set_id(job.id());
  for (const double bound : kStepBounds) {
    metrics_.mutable_step_seconds()->add_bounds(bound);
    metrics_.mutable_step_seconds()->add_counts(0);
  }
  metrics_.mutable_step_seconds()->add_counts(0);
  metrics_.mutable_lost();
}

void JobFigures::Start(const v1::Job& job, const v1::Plan& plan,
                       int64_t now_millis) {
  metrics_.set_name(job.spec().name());
  metrics_.set_generation(job.generation());
  metrics_.set_num_stages(plan.num_stages());
  metrics_.set_num_replicas(plan.num_replicas());
  batch_samples_ = job.spec().train().batch();
  num_microbatches_ = plan.num_microbatches();
  dropped_samples_ = 0;
  metrics_.clear_stragglers();
  metrics_.clear_dropping();
  if (paused_since_millis_ != 0) {
    paused_seconds_ += Seconds(paused_since_millis_, now_millis);
    paused_since_millis_ = 0;
  } else if (metrics_.start_time_millis() != 0) {
    LoseRestart(now_millis);
  }
  if (metrics_.start_time_millis() == 0) {
    metrics_.set_start_time_millis(now_millis);
  }
  metrics_.set_end_time_millis(0);
  progress_millis_ = now_millis;
  last_step_ = job.step() - 1;
  is_first_step_ = true;
  furthest_step_ =
      std::max({furthest_step_, last_step_, job.furthest_step() - 1});
  StartRanks(plan);
  Change(job, now_millis);
  detected_millis_ = 0;
  assigned_millis_ = 0;
}

void JobFigures::LoseRestart(int64_t now_millis) {
  v1::LostSeconds* lost = metrics_.mutable_lost();
  lost->set_restart(lost->restart() + Seconds(progress_millis_, now_millis));
  const int64_t detected = std::max(detected_millis_, progress_millis_);
  detect_seconds_ += Seconds(progress_millis_, detected);
  if (assigned_millis_ != 0) {
    reload_seconds_ +=
        Seconds(std::max(assigned_millis_, detected), now_millis);
  }
}

void JobFigures::GoBack(const std::string& cause, int64_t now_millis) {
  ++restarts_[cause];
  // The first one of several before the next start.
  if (detected_millis_ == 0) detected_millis_ = now_millis;
  assigned_millis_ = 0;
}

void JobFigures::StartRanks(const v1::Plan& plan) {
  // Ranks and links that the plan no longer has go; the others begin anew.
  std::map<std::pair<int, int>, Rank> former;
  former.swap(ranks_);
  for (int stage = 0; stage < plan.num_stages(); ++stage) {
    for (int replica = 0; replica < plan.num_replicas(); ++replica) {
      Rank& rank = ranks_[{stage, replica}];
      const auto found = former.find({stage, replica});
      if (found != former.end()) rank = std::move(found->second);
      rank.base = rank.metrics;
      rank.last.Clear();
      rank.hash_step = -1;
      rank.metrics.set_stage(stage);
      rank.metrics.set_replica(replica);
      if (stage >= plan.stages_size()) continue;
      const v1::StagePlan& planned = plan.stages(stage);
      rank.predicted_seconds =
          plan.num_microbatches() *
          (planned.forward_seconds() + planned.backward_seconds());
      rank.metrics.set_predicted_idle_ratio(
          rank.predicted_seconds > 0 && plan.predicted_step_seconds() > 0
              ? 1 - Share(rank.predicted_seconds, plan.predicted_step_seconds())
              : 0);
    }
  }
  for (auto it = links_.begin(); it != links_.end();) {
    Link& link = it->second;
    if (std::get<0>(it->first) >= plan.num_stages() - 1 ||
        std::get<2>(it->first) >= plan.num_replicas()) {
      it = links_.erase(it);
      continue;
    }
    link.base_raw = link.metrics.raw_bytes();
    link.base_wire = link.metrics.wire_bytes();
    link.base_seconds = link.metrics.send_seconds();
    link.base_not_finite = link.not_finite;
    link.last.Clear();
    ++it;
  }
}

void JobFigures::Change(const v1::Job& job, int64_t now_millis) {
  if (job.state() == v1::JOB_STATE_STARTING && assigned_millis_ == 0) {
    assigned_millis_ = now_millis;
  }
  metrics_.set_state(job.state());
  metrics_.set_reason(job.reason());
  metrics_.set_restarts(job.restarts());
  for (const v1::JobMember& member : job.members()) {
    if (metrics_.num_replicas() == 0) break;
    const auto found = ranks_.find({member.rank() / metrics_.num_replicas(),
                                    member.rank() % metrics_.num_replicas()});
    if (found != ranks_.end()) {
      found->second.metrics.set_worker_id(member.worker_id());
    }
  }
  const bool is_paused = job.state() == v1::JOB_STATE_PAUSED;
  if (is_paused && paused_since_millis_ == 0) {
    paused_since_millis_ = now_millis;
  }
  const bool is_finished = IsFinished(job.state());
  if (is_finished && metrics_.end_time_millis() == 0) {
    metrics_.set_end_time_millis(now_millis);
  } else if (!is_finished) {
    metrics_.set_end_time_millis(0);
  }
}

void JobFigures::Report(int stage, int replica, const v1::StepReport& report,
                        int64_t now_millis) {
  const auto found = ranks_.find({stage, replica});
  if (found == ranks_.end() || report.generation() < metrics_.generation()) {
    return;
  }
  Rank& rank = found->second;
  v1::RankMetrics& metrics = rank.metrics;
  // Sent once more after a coordinator was away.
  if (rank.last.generation() == report.generation() && rank.last.steps() > 0 &&
      report.step() <= rank.last.step()) {
    return;
  }
  SetTotals(rank.base, report, &metrics);
  for (int delay = 0; delay < report.microbatches_by_delay_size(); ++delay) {
    if (delay == metrics.microbatches_by_delay_size()) {
      metrics.add_microbatches_by_delay(0);
    }
    metrics.set_microbatches_by_delay(delay,
                                      metrics.microbatches_by_delay(delay) +
                                          report.microbatches_by_delay(delay));
  }
  AddPhases(report, &rank.phases);
  if (report.has_saved()) AddSaved(report.saved(), metrics.mutable_saved());
  ReportDropped(stage, report, &rank);
  ReportLinks(replica, report);
  const double steps =
      static_cast<double>(std::max<int64_t>(1, report.steps()));
  metrics.set_step(report.step());
  metrics.set_report_time_millis(now_millis);
  metrics.set_tuning_revision(report.tuning_revision());
  metrics.set_loss_scale(report.loss_scale());
  metrics.set_planned_microbatches(
      report.planned_microbatches().empty()
          ? num_microbatches_
          : *report.planned_microbatches().rbegin());
  metrics.set_step_seconds(report.step_seconds() / steps);
  metrics.set_compute_seconds(report.compute_seconds() / steps);
  metrics.set_wait_seconds(report.wait_seconds() / steps);
  metrics.set_reduce_seconds(report.reduce_seconds() / steps);
  metrics.set_idle_ratio(
      report.step_seconds() > 0
          ? 1 - Share(report.compute_seconds(), report.step_seconds())
          : 0);
  metrics.set_memory_bytes(report.memory_bytes());
  metrics.set_state_bytes(report.bytes().state_bytes());
  metrics.set_total_step_seconds(metrics.total_step_seconds() +
                                 report.step_seconds());
  metrics.set_total_compute_seconds(metrics.total_compute_seconds() +
                                    report.compute_seconds());
  metrics.set_total_wait_seconds(metrics.total_wait_seconds() +
                                 report.wait_seconds());
  metrics.set_total_reduce_seconds(metrics.total_reduce_seconds() +
                                   report.reduce_seconds());
  const double pace = PaceSeconds(report);
  if (pace > 0) {
    rank.mean_compute_seconds =
        rank.mean_compute_seconds == 0
            ? pace
            : (1 - kPaceWeight) * rank.mean_compute_seconds +
                  kPaceWeight * pace;
  }
  // The same samples pass through all stages.
  if (stage == 0) metrics_.set_tokens(metrics_.tokens() + report.tokens());
  CompareWeights(stage, replica, report);
  rank.last = report;
}

double JobFigures::PaceSeconds(const v1::StepReport& report) const {
  const int64_t steps = std::max<int64_t>(1, report.steps());
  if (report.microbatches().empty()) {
    return report.compute_seconds() / static_cast<double>(steps);
  }
  const int64_t done = std::accumulate(report.microbatches().begin(),
                                       report.microbatches().end(), int64_t{0});
  return done > 0 ? report.compute_seconds() * num_microbatches_ /
                        static_cast<double>(done)
                  : 0;
}

void JobFigures::ReportDropped(int stage, const v1::StepReport& report,
                               Rank* rank) {
  int64_t dropped = 0;
  for (int i = 0; i < report.microbatches_size(); ++i) {
    const int planned = i < report.planned_microbatches_size()
                            ? report.planned_microbatches(i)
                            : num_microbatches_;
    dropped += std::max(0, planned - report.microbatches(i));
  }
  rank->metrics.set_dropped_microbatches(rank->metrics.dropped_microbatches() +
                                         dropped);
  if (stage != 0) return;
  dropped_samples_ += std::max<int64_t>(0, report.dropped_samples());
  if (rank->metrics.replica() != 0) return;
  if (report.has_stragglers()) {
    *metrics_.mutable_dropping() = report.stragglers();
  } else {
    metrics_.clear_dropping();
  }
}

void JobFigures::ReportLinks(int replica, const v1::StepReport& report) {
  // A worker may name a boundary once for each codec that it has used.
  std::map<LinkKey, v1::LinkReport> sums;
  for (const v1::LinkReport& link : report.links()) {
    if (link.boundary() < 0 || link.boundary() >= metrics_.num_stages() - 1) {
      continue;
    }
    v1::LinkReport& sum = sums[{link.boundary(), link.is_gradient(), replica}];
    v1::LinkReport next = link;
    next.set_raw_bytes(sum.raw_bytes() + link.raw_bytes());
    next.set_wire_bytes(sum.wire_bytes() + link.wire_bytes());
    next.set_send_seconds(sum.send_seconds() + link.send_seconds());
    next.set_not_finite(sum.not_finite() + link.not_finite());
    next.set_round_trip_seconds(
        std::max(sum.round_trip_seconds(), link.round_trip_seconds()));
    sum = std::move(next);
  }
  for (const auto& [key, sum] : sums) {
    Link& link = links_[key];
    v1::LinkMetrics& metrics = link.metrics;
    const auto raw =
        static_cast<double>(sum.raw_bytes() - link.last.raw_bytes());
    const auto wire =
        static_cast<double>(sum.wire_bytes() - link.last.wire_bytes());
    metrics.set_boundary(sum.boundary());
    metrics.set_is_gradient(sum.is_gradient());
    metrics.set_replica(replica);
    metrics.set_codec(sum.codec());
    metrics.set_raw_bytes(link.base_raw + sum.raw_bytes());
    metrics.set_wire_bytes(link.base_wire + sum.wire_bytes());
    metrics.set_send_seconds(link.base_seconds + sum.send_seconds());
    metrics.set_compression_ratio(wire > 0 ? raw / wire : 0);
    if (report.step_seconds() > 0) {
      metrics.set_bytes_per_second(wire / report.step_seconds());
      metrics.set_busy_ratio(
          Share(sum.send_seconds() - link.last.send_seconds(),
                report.step_seconds()));
    }
    metrics.set_relative_error(sum.relative_error());
    link.not_finite = link.base_not_finite + sum.not_finite();
    link.last = sum;
  }
}

void JobFigures::CompareWeights(int stage, int replica,
                                const v1::StepReport& report) {
  if (report.weights_hash() == 0) return;
  Rank& mine = ranks_[{stage, replica}];
  mine.hash_step = report.step();
  mine.weights_hash = report.weights_hash();
  for (const auto& [place, rank] : ranks_) {
    // One pair that differs is enough, and counts once.
    if (place.first == stage && rank.hash_step == report.step() &&
        rank.weights_hash != report.weights_hash()) {
      metrics_.set_verify_failures(metrics_.verify_failures() + 1);
      return;
    }
  }
}

void JobFigures::Complete(const v1::StepSummary& summary, int64_t now_millis) {
  if (is_first_step_) last_step_ = std::min(last_step_, summary.step() - 1);
  is_first_step_ = false;
  if (summary.step() <= last_step_) return;
  const int64_t steps = summary.step() - last_step_;
  const int64_t repeated =
      std::min(steps, std::max<int64_t>(0, furthest_step_ - last_step_));
  const double seconds = summary.step_seconds();
  last_step_ = summary.step();
  furthest_step_ = std::max(furthest_step_, last_step_);
  progress_millis_ = now_millis;
  useful_seconds_ += seconds * static_cast<double>(steps - repeated);
  v1::LostSeconds* lost = metrics_.mutable_lost();
  lost->set_recompute(lost->recompute() +
                      seconds * static_cast<double>(repeated));
  metrics_.set_steps(metrics_.steps() + steps);
  // Ranks may have reported further; neither sum may ever fall.
  const int64_t dropped = std::min(dropped_samples_, steps * batch_samples_);
  dropped_samples_ -= dropped;
  metrics_.set_samples(metrics_.samples() + steps * batch_samples_ - dropped);
  metrics_.set_samples_dropped(metrics_.samples_dropped() + dropped);
  if (summary.skipped()) {
    metrics_.set_skipped_steps(metrics_.skipped_steps() + 1);
  }
  *metrics_.mutable_step() = summary;
  metrics_.set_step_time_millis(now_millis);
  Observe(seconds, steps, metrics_.mutable_step_seconds());
  recent_step_seconds_.push_back(seconds);
  if (recent_step_seconds_.size() > kEtaSteps) recent_step_seconds_.pop_front();
  AddLoss(summary.step(), summary.loss());
}

void JobFigures::AddLoss(int64_t step, double loss) {
  // Those of steps that are done again are replaced.
  while (!losses_.empty() && losses_.back().step() >= step) losses_.pop_back();
  if (!std::isfinite(loss) || loss == 0) return;
  if (num_losses_++ % loss_stride_ != 0) return;
  v1::LossPoint point;
  point.set_step(step);
  point.set_loss(loss);
  losses_.push_back(point);
  if (losses_.size() < size_t{2} * kMaxLosses) return;
  for (size_t i = 0; i < losses_.size() / 2; ++i) losses_[i] = losses_[2 * i];
  losses_.resize(losses_.size() / 2);
  loss_stride_ *= 2;
}

void JobFigures::Validate(const v1::StepSummary& summary) {
  metrics_.set_validation_step(summary.step());
  metrics_.set_validation_loss(summary.validation_loss());
  metrics_.clear_validation_accuracy();
  if (summary.has_validation_accuracy()) {
    metrics_.set_validation_accuracy(summary.validation_accuracy());
  }
}

void JobFigures::SetStragglers(const v1::StragglerAnalysis& analysis) {
  if (analysis.scores_size() == 0) {
    metrics_.clear_stragglers();
  } else {
    *metrics_.mutable_stragglers() = analysis;
  }
}

void JobFigures::Checkpoint(const v1::CheckpointMetrics& checkpoint) {
  *metrics_.mutable_checkpoint() = checkpoint;
  metrics_.set_checkpoints(metrics_.checkpoints() + 1);
  metrics_.set_checkpoint_stall_seconds(metrics_.checkpoint_stall_seconds() +
                                        checkpoint.stall_seconds());
  metrics_.mutable_lost()->set_checkpoint(metrics_.checkpoint_stall_seconds());
}

void JobFigures::AddEvents(const std::vector<v1::JobEvent>& events) {
  for (const v1::JobEvent& event : events) {
    if (event.sequence() <= last_event_sequence_) continue;
    last_event_sequence_ = event.sequence();
    events_.push_back(event);
    if (events_.size() > kMaxEvents) events_.pop_front();
  }
}

double JobFigures::EtaSeconds() const {
  if (recent_step_seconds_.empty() || metrics_.end_time_millis() != 0) return 0;
  double sum = 0;
  for (const double seconds : recent_step_seconds_) sum += seconds;
  const int64_t left =
      metrics_.step().total_steps() - metrics_.step().step() - 1;
  return left <= 0 ? 0
                   : static_cast<double>(left) * sum /
                         static_cast<double>(recent_step_seconds_.size());
}

v1::JobMetrics JobFigures::Snapshot(int64_t now_millis) const {
  v1::JobMetrics snapshot = metrics_;
  snapshot.set_eta_seconds(EtaSeconds());
  int64_t end = now_millis;
  if (metrics_.end_time_millis() != 0) end = metrics_.end_time_millis();
  if (paused_since_millis_ != 0) end = paused_since_millis_;
  snapshot.set_goodput_ratio(
      Share(useful_seconds_ - metrics_.checkpoint_stall_seconds(),
            Seconds(metrics_.start_time_millis(), end) - paused_seconds_));
  std::vector<RankPace> paces;
  for (const auto& [place, rank] : ranks_) {
    paces.push_back(
        {place.first, rank.mean_compute_seconds, rank.predicted_seconds});
  }
  const std::vector<double> scores = StragglerScores(paces);
  size_t next = 0;
  for (const auto& [place, rank] : ranks_) {
    v1::RankMetrics* metrics = snapshot.add_ranks();
    *metrics = rank.metrics;
    metrics->set_straggler_score(scores[next++]);
  }
  for (const auto& [key, link] : links_) {
    *snapshot.add_links() = link.metrics;
  }
  for (const v1::LossPoint& loss : losses_) *snapshot.add_losses() = loss;
  for (const v1::JobEvent& event : events_) *snapshot.add_events() = event;
  return snapshot;
}

JobSeries JobFigures::Series(int64_t now_millis) const {
  JobSeries series(Snapshot(now_millis));
  for (const auto& [place, rank] : ranks_) series.phases.push_back(rank.phases);
  for (const auto& [key, link] : links_) {
    if (link.not_finite > 0) series.not_finite[key] = link.not_finite;
    const double seconds = link.last.round_trip_seconds();
    if (seconds <= 0) continue;
    // Both ends of a boundary see the same way there and back.
    double& longest =
        series.round_trip_seconds[{std::get<0>(key), std::get<2>(key)}];
    longest = std::max(longest, seconds);
  }
  series.restarts = restarts_;
  series.detect_seconds = detect_seconds_;
  series.reload_seconds = reload_seconds_;
  return series;
}

}  // namespace deltapipe
