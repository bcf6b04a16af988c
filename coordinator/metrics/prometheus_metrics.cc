#include "coordinator/metrics/prometheus_metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/background/metric_sink.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

/// Of an element as fp32.
constexpr double kRawBits = 32;

constexpr char kPrefix[] = "deltapipe_";

enum Metric {
#define DP_METRIC(type, name, labels, help) k_##name,
#include "coordinator/metrics/metrics.def"
#undef DP_METRIC
  kNumMetrics
};

struct Row {
  prometheus::MetricType type;
  const char* name;
  const char* labels;
  const char* help;
};
constexpr Row kRows[] = {
#define DP_METRIC(type, name, labels, help) \
  {prometheus::MetricType::type, #name, labels, help},
#include "coordinator/metrics/metrics.def"
#undef DP_METRIC
};

std::vector<std::string> LabelsOf(const Row& row) {
  return absl::StrSplit(row.labels, ',', absl::SkipEmpty());
}

using Values = std::vector<std::string>;

/// Collects the samples of all metrics.
class Exposition {
 public:
  Exposition() : families_(kNumMetrics) {
    for (int metric = 0; metric < kNumMetrics; ++metric) {
      prometheus::MetricFamily& family = families_[metric];
      family.name = absl::StrCat(kPrefix, kRows[metric].name);
      family.help = kRows[metric].help;
      family.type = kRows[metric].type;
      labels_.push_back(LabelsOf(kRows[metric]));
    }
  }

  /// `values` are those of the metric's labels, in their order.
  void Add(Metric metric, const Values& values, double value) {
    prometheus::ClientMetric& sample = AddSample(metric, values);
    sample.counter.value = value;
    sample.gauge.value = value;
  }

  void Add(Metric metric, const Values& values,
           const v1::Histogram& histogram) {
    prometheus::ClientMetric::Histogram& sample =
        AddSample(metric, values).histogram;
    for (int i = 0; i < histogram.counts_size(); ++i) {
      sample.sample_count += static_cast<uint64_t>(histogram.counts(i));
      sample.bucket.push_back(
          {sample.sample_count, i < histogram.bounds_size()
                                    ? histogram.bounds(i)
                                    : std::numeric_limits<double>::infinity()});
    }
    sample.sample_sum = histogram.sum();
  }

  std::string ToString() {
    families_.erase(std::remove_if(families_.begin(), families_.end(),
                                   [](const prometheus::MetricFamily& family) {
                                     return family.metric.empty();
                                   }),
                    families_.end());
    return prometheus::TextSerializer().Serialize(families_);
  }

 private:
  prometheus::ClientMetric& AddSample(Metric metric, const Values& values) {
    prometheus::ClientMetric sample;
    const std::vector<std::string>& names = labels_[metric];
    for (size_t i = 0; i < names.size(); ++i) {
      sample.label.push_back({names[i], values[i]});
    }
    families_[metric].metric.push_back(std::move(sample));
    return families_[metric].metric.back();
  }

  std::vector<prometheus::MetricFamily> families_;
  std::vector<std::vector<std::string>> labels_;
};

double UnixSeconds(int64_t millis) { return static_cast<double>(millis) / 1e3; }

double Number(int64_t value) { return static_cast<double>(value); }

void AddStep(const v1::JobMetrics& job, Exposition* out) {
  const Values id = {job.id()};
  const v1::StepSummary& step = job.step();
  out->Add(k_step, id, Number(step.step() + 1));
  out->Add(k_step_target, id, Number(step.total_steps()));
  out->Add(k_loss, id, step.loss());
  out->Add(k_grad_norm, id, step.gradient_norm());
  out->Add(k_learning_rate, id, step.learning_rate());
  out->Add(k_tokens_per_second, id, step.tokens_per_second());
  if (step.step_seconds() > 0 && job.steps() > 0) {
    out->Add(k_samples_per_second, id,
             Number(job.samples()) / Number(job.steps()) / step.step_seconds());
  }
  out->Add(k_eta_seconds, id, job.eta_seconds());
  out->Add(k_last_step_timestamp_seconds, id,
           UnixSeconds(job.step_time_millis()));
}

void AddJob(const v1::JobMetrics& job, Exposition* out) {
  const Values id = {job.id()};
  out->Add(k_job_info, {job.id(), job.name()}, 1);
  for (int state = v1::JOB_STATE_PENDING; v1::JobState_IsValid(state);
       ++state) {
    out->Add(k_job_state,
             {job.id(), StateName(static_cast<v1::JobState>(state))},
             job.state() == state ? 1 : 0);
  }
  out->Add(k_generation, id, static_cast<double>(job.generation()));
  if (job.has_step()) AddStep(job, out);
  out->Add(k_steps_total, id, Number(job.steps()));
  out->Add(k_samples_total, id, Number(job.samples()));
  out->Add(k_tokens_total, id, Number(job.tokens()));
  out->Add(k_skipped_steps_total, id, Number(job.skipped_steps()));
  if (job.validation_loss() != 0) {
    out->Add(k_validation_loss, id, job.validation_loss());
  }
  if (job.has_validation_accuracy()) {
    out->Add(k_validation_accuracy, id, job.validation_accuracy());
  }
  out->Add(k_step_seconds, id, job.step_seconds());
  out->Add(k_goodput_ratio, id, job.goodput_ratio());
  out->Add(k_lost_seconds_total, {job.id(), "recompute"},
           job.lost().recompute());
  out->Add(k_lost_seconds_total, {job.id(), "checkpoint"},
           job.lost().checkpoint());
  out->Add(k_checkpoints_total, id, Number(job.checkpoints()));
  out->Add(k_checkpoint_stall_seconds_total, id,
           job.checkpoint_stall_seconds());
  out->Add(k_verify_failures_total, id, Number(job.verify_failures()));
  if (!job.has_checkpoint()) return;
  out->Add(k_checkpoint_step, id, Number(job.checkpoint().step()));
  out->Add(k_checkpoint_bytes, id, Number(job.checkpoint().bytes()));
  out->Add(k_checkpoint_seconds, id, job.checkpoint().seconds());
  out->Add(k_checkpoint_last_success_timestamp_seconds, id,
           UnixSeconds(job.checkpoint().time_millis()));
}

void AddRestarts(const JobSeries& series, Exposition* out) {
  const v1::JobMetrics& job = series.metrics;
  const double restart =
      job.lost().restart() - series.detect_seconds - series.reload_seconds;
  out->Add(k_lost_seconds_total, {job.id(), "detect"}, series.detect_seconds);
  out->Add(k_lost_seconds_total, {job.id(), "restart"}, std::max(0.0, restart));
  out->Add(k_lost_seconds_total, {job.id(), "reload"}, series.reload_seconds);
  int64_t earlier = job.restarts();
  for (const char* const cause : {kWorkerLost, kWorkerLeft, kConnection}) {
    const auto found = series.restarts.find(cause);
    const int64_t count = found == series.restarts.end() ? 0 : found->second;
    out->Add(k_restarts_total, {job.id(), cause}, Number(count));
    earlier -= count;
  }
  if (earlier > 0) {
    out->Add(k_restarts_total, {job.id(), "earlier"}, Number(earlier));
  }
}

void AddStragglers(const v1::JobMetrics& job, Exposition* out) {
  out->Add(k_samples_dropped_total, {job.id()}, Number(job.samples_dropped()));
  if (job.has_dropping()) {
    const v1::StragglerReport& dropping = job.dropping();
    out->Add(k_drop_threshold_seconds, {job.id()}, dropping.tau_seconds());
    out->Add(k_drop_ratio, {job.id(), "predicted"},
             dropping.predicted_drop_share());
    out->Add(k_drop_ratio, {job.id(), "realised"},
             dropping.realised_drop_share());
    out->Add(k_drop_speedup_ratio, {job.id(), "predicted"},
             dropping.predicted_speedup());
    out->Add(k_drop_speedup_ratio, {job.id(), "realised"},
             dropping.realised_speedup());
  }
  if (!job.has_stragglers()) return;
  const v1::StragglerAnalysis& analysis = job.stragglers();
  if (analysis.ideal_seconds() > 0) {
    out->Add(k_straggler_slowdown_ratio, {job.id()},
             analysis.step_seconds() / analysis.ideal_seconds());
  }
  for (const v1::Straggler& straggler : analysis.stragglers()) {
    out->Add(k_straggler_lost_seconds,
             {job.id(), absl::StrCat(straggler.stage()),
              absl::StrCat(straggler.replica()), straggler.cause()},
             straggler.seconds_lost_per_step());
  }
}

/// `place` is job, stage and replica.
void AddSaved(const v1::SavedReport& saved, const Values& place,
              Exposition* out) {
  const auto with = [&place](const std::string& last) {
    Values values = place;
    values.push_back(last);
    return values;
  };
  out->Add(k_saved_activation_bytes_total, with("raw"),
           Number(saved.raw_bytes()));
  out->Add(k_saved_activation_bytes_total, with("unique"),
           Number(saved.unique_bytes()));
  out->Add(k_saved_activation_bytes_total, with("packed"),
           Number(saved.packed_bytes()));
  out->Add(k_saved_activation_bytes_total, with("passed"),
           Number(saved.passed_bytes()));
  out->Add(k_saved_activation_bytes_total, with("metadata"),
           Number(saved.metadata_bytes()));
  out->Add(k_saved_activation_peak_bytes, place, Number(saved.peak_bytes()));
  out->Add(k_saved_activation_scratch_peak_bytes, place,
           Number(saved.scratch_peak_bytes()));
  if (saved.offloaded_peak_bytes() > 0) {
    out->Add(k_saved_activation_offloaded_peak_bytes, place,
             Number(saved.offloaded_peak_bytes()));
  }
  for (const v1::SavedError& error : saved.errors()) {
    out->Add(k_saved_gradient_error, with(error.operator_()),
             error.relative_error());
  }
}

/// `place` is job, stage and replica.
void AddPhases(const RankPhases& rank, const Values& place, Exposition* out) {
  const v1::PhaseSeconds& phases = rank.phases;
  for (const auto& [phase, seconds] : {
           std::pair<const char*, double>{"data", phases.data()},
           {"forward", phases.forward()},
           {"backward", phases.backward()},
           {"wait_recv", phases.receive_wait()},
           {"reduce", rank.reduce_seconds},
           {"optimizer", phases.optimizer()},
           {"compress", phases.encode()},
           {"wait_send", phases.send_wait()},
           {"decompress", phases.decode()},
       }) {
    Values values = place;
    values.emplace_back(phase);
    out->Add(k_phase_seconds_total, values, seconds);
  }
}

void AddFaults(const v1::RankMetrics& rank, const Values& place,
               Exposition* out) {
  const v1::FaultCounters& faults = rank.faults();
  out->Add(k_delta_resync_total, place, Number(faults.keyframes()));
  out->Add(k_retransmits_total, place, Number(faults.frames_resent()));
  const auto add_if_any = [&](Metric metric, int64_t count) {
    if (count > 0) out->Add(metric, place, Number(count));
  };
  add_if_any(k_checksum_errors_total, faults.bad_checksums());
  add_if_any(k_frame_gaps_total, faults.gaps());
  add_if_any(k_frames_refused_total, faults.refused());
}

/// `is_planned`: what a worker has to do may be less, or another's.
void AddRank(const std::string& job_id, const v1::RankMetrics& rank,
             bool is_planned, Exposition* out) {
  const Values place = {job_id, absl::StrCat(rank.stage()),
                        absl::StrCat(rank.replica())};
  const auto with = [&place](const std::string& last) {
    Values values = place;
    values.push_back(last);
    return values;
  };
  out->Add(k_bubble_ratio, place, rank.idle_ratio());
  if (rank.predicted_idle_ratio() > 0 && rank.replica() == 0) {
    out->Add(k_bubble_planned_ratio, {job_id, absl::StrCat(rank.stage())},
             rank.predicted_idle_ratio());
  }
  if (rank.straggler_score() > 0) {
    out->Add(k_straggler_score, place, rank.straggler_score());
  }
  if (is_planned) {
    out->Add(k_planned_microbatches, place, rank.planned_microbatches());
  }
  if (rank.loss_scale() > 0) out->Add(k_loss_scale, place, rank.loss_scale());
  if (is_planned || rank.dropped_microbatches() > 0) {
    out->Add(k_dropped_microbatches_total, place,
             Number(rank.dropped_microbatches()));
  }
  for (int delay = 0; delay < rank.microbatches_by_delay_size(); ++delay) {
    out->Add(k_microbatches_total, with(absl::StrCat(delay)),
             Number(rank.microbatches_by_delay(delay)));
  }
  out->Add(k_memory_bytes, with("resident"), Number(rank.memory_bytes()));
  out->Add(k_memory_bytes, with("codec_state"), Number(rank.state_bytes()));
  if (rank.has_saved()) AddSaved(rank.saved(), place, out);
  if (rank.gradient_raw_bytes() > 0) {
    out->Add(k_gradient_raw_bytes_total, place,
             Number(rank.gradient_raw_bytes()));
    out->Add(k_gradient_wire_bytes_total, place,
             Number(rank.gradient_wire_bytes()));
  }
  out->Add(k_other_wire_bytes_total, place, Number(rank.other_wire_bytes()));
  if (rank.delta_rows() + rank.value_rows() > 0) {
    out->Add(k_record_rows_total, with("delta"), Number(rank.delta_rows()));
    out->Add(k_record_rows_total, with("value"), Number(rank.value_rows()));
  }
  AddFaults(rank, place, out);
  out->Add(k_report_timestamp_seconds, place,
           UnixSeconds(rank.report_time_millis()));
}

/// The labels of what goes over a link in one direction.
Values LinkPlace(const std::string& job_id, int boundary, bool is_gradient,
                 int replica) {
  return {job_id, absl::StrCat(boundary), is_gradient ? "backward" : "forward",
          absl::StrCat(replica)};
}

void AddLink(const std::string& job_id, const v1::LinkMetrics& link,
             Exposition* out) {
  const Values place =
      LinkPlace(job_id, link.boundary(), link.is_gradient(), link.replica());
  Values coded = place;
  coded.push_back(link.codec());
  out->Add(
      k_link_bits, coded,
      link.compression_ratio() > 0 ? kRawBits / link.compression_ratio() : 0);
  out->Add(k_link_raw_bytes_total, place, Number(link.raw_bytes()));
  out->Add(k_link_wire_bytes_total, place, Number(link.wire_bytes()));
  out->Add(k_link_send_seconds_total, place, link.send_seconds());
  out->Add(k_link_compression_ratio, place, link.compression_ratio());
  out->Add(k_link_goodput_bytes_per_second, place, link.bytes_per_second());
  if (link.relative_error() > 0) {
    out->Add(k_link_quantization_error_relative, place, link.relative_error());
  }
}

void AddWays(const JobSeries& series, Exposition* out) {
  for (const auto& [place, seconds] : series.round_trip_seconds) {
    out->Add(k_link_round_trip_seconds,
             {series.metrics.id(), absl::StrCat(place.first),
              absl::StrCat(place.second)},
             seconds);
  }
  for (const auto& [key, values] : series.not_finite) {
    const auto& [boundary, is_gradient, replica] = key;
    out->Add(k_link_not_finite_total,
             LinkPlace(series.metrics.id(), boundary, is_gradient, replica),
             Number(values));
  }
  for (const auto& [boundary, limit] : series.rate_limit_bytes_per_second) {
    out->Add(k_link_rate_limit_bytes_per_second,
             {series.metrics.id(), absl::StrCat(boundary)}, limit);
  }
}

void AddJobSeries(const JobSeries& series, Exposition* out) {
  const v1::JobMetrics& job = series.metrics;
  AddJob(job, out);
  AddRestarts(series, out);
  AddStragglers(job, out);
  uint32_t revision = UINT32_MAX;
  for (int i = 0; i < job.ranks_size(); ++i) {
    const v1::RankMetrics& rank = job.ranks(i);
    // One that has not reported yet has nothing to say.
    if (rank.report_time_millis() == 0) continue;
    AddRank(job.id(), rank, job.has_dropping(), out);
    if (static_cast<size_t>(i) < series.phases.size()) {
      AddPhases(
          series.phases[static_cast<size_t>(i)],
          {job.id(), absl::StrCat(rank.stage()), absl::StrCat(rank.replica())},
          out);
    }
    revision = std::min(revision, rank.tuning_revision());
  }
  if (revision != UINT32_MAX) out->Add(k_tuning_revision, {job.id()}, revision);
  for (const v1::LinkMetrics& link : job.links()) AddLink(job.id(), link, out);
  AddWays(series, out);
}

void AddCluster(const ClusterFigures& cluster, Exposition* out) {
  out->Add(k_build_info, {cluster.version}, 1);
  out->Add(k_start_timestamp_seconds, {},
           UnixSeconds(cluster.start_time_millis));
  for (const auto& [state, count] : cluster.jobs) {
    out->Add(k_jobs, {StateName(state)}, Number(count));
  }
  out->Add(k_workers, {"idle"}, Number(cluster.idle_workers));
  out->Add(k_workers, {"busy"}, Number(cluster.busy_workers));
  out->Add(k_workers_lost_total, {}, Number(cluster.workers_lost));
  out->Add(k_heartbeats_missed_total, {}, Number(cluster.heartbeats_missed));
  for (const auto& [call, count] : cluster.rpcs) {
    out->Add(k_rpcs_total, {call.first, call.second}, Number(count));
  }
  if (cluster.commit_seconds.counts_size() > 0) {
    out->Add(k_db_commit_seconds, {}, cluster.commit_seconds);
  }
  out->Add(k_watch_lag_revisions, {}, Number(cluster.watch_lag));
}

}  // namespace

std::string PrometheusText(const std::vector<JobSeries>& jobs,
                           const ClusterFigures& cluster) {
  Exposition exposition;
  for (const JobSeries& series : jobs) AddJobSeries(series, &exposition);
  AddCluster(cluster, &exposition);
  return exposition.ToString();
}

std::vector<MetricDescription> MetricCatalogue() {
  std::vector<MetricDescription> catalogue;
  for (const Row& row : kRows) {
    const char* const type =
        row.type == prometheus::MetricType::Counter ? "counter"
        : row.type == prometheus::MetricType::Gauge ? "gauge"
                                                    : "histogram";
    catalogue.push_back(
        {type, absl::StrCat(kPrefix, row.name), LabelsOf(row), row.help});
  }
  return catalogue;
}

}  // namespace deltapipe
