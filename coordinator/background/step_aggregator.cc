#include "coordinator/background/step_aggregator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

/// Steps over which the reported rate is averaged.
constexpr size_t kRateSteps = 20;

void AddTo(const v1::ByteCounters& bytes, v1::ByteCounters* total) {
  total->set_activation_raw(total->activation_raw() + bytes.activation_raw());
  total->set_activation_wire(total->activation_wire() +
                             bytes.activation_wire());
  total->set_gradient_raw(total->gradient_raw() + bytes.gradient_raw());
  total->set_gradient_wire(total->gradient_wire() + bytes.gradient_wire());
  total->set_evaluation_wire(total->evaluation_wire() +
                             bytes.evaluation_wire());
  total->set_other_wire(total->other_wire() + bytes.other_wire());
  total->set_saved_raw(total->saved_raw() + bytes.saved_raw());
  total->set_saved_stored(total->saved_stored() + bytes.saved_stored());
}

void AddTo(const v1::FaultCounters& faults, v1::FaultCounters* total) {
  total->set_frames_resent(total->frames_resent() + faults.frames_resent());
  total->set_bad_checksums(total->bad_checksums() + faults.bad_checksums());
  total->set_gaps(total->gaps() + faults.gaps());
  total->set_keyframes(total->keyframes() + faults.keyframes());
  total->set_refused(total->refused() + faults.refused());
}

}  // namespace

StepAggregator::StepAggregator(AggregatorShape shape)
    : shape_(std::move(shape)),
      num_ranks_(shape_.num_stages * shape_.num_replicas),
      last_steps_(static_cast<size_t>(num_ranks_), -1),
      bytes_(static_cast<size_t>(num_ranks_)),
      faults_(static_cast<size_t>(num_ranks_)) {}

std::string StepAggregator::Describe(int rank) const {
  return absl::StrCat(shape_.worker_ids[static_cast<size_t>(rank)], " (stage ",
                      StageOf(rank), ", replica ", rank % shape_.num_replicas,
                      ")");
}

absl::StatusOr<std::optional<v1::StepSummary>> StepAggregator::Add(
    int rank, const v1::StepReport& report) {
  const size_t index = static_cast<size_t>(rank);
  if (report.step() <= last_steps_[index]) {
    return absl::InternalError(absl::StrCat(
        Describe(rank), " reported step ", report.step(), " after step ",
        last_steps_[index], ", expected rising steps"));
  }
  if (open_.size() >= kMaxOpenReports && open_.count(report.step()) == 0) {
    return absl::InternalError(absl::StrCat(
        Describe(rank), " reported step ", report.step(), ", ", open_.size(),
        " reports ahead of the last step that all reported, ", last_complete_));
  }
  last_steps_[index] = report.step();
  bytes_[index] = report.bytes();
  faults_[index] = report.faults();
  Step& step = open_[report.step()];
  step.reports.resize(static_cast<size_t>(num_ranks_));
  step.reports[index] = report;
  if (++step.num_reports < num_ranks_) return std::optional<v1::StepSummary>();
  DP_RETURN_IF_ERROR(CompareWeights(step));
  v1::StepSummary summary = Summarise(step);
  open_.erase(report.step());
  return std::optional<v1::StepSummary>(std::move(summary));
}

absl::Status StepAggregator::CompareWeights(const Step& step) const {
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const int first = StageOf(rank) * shape_.num_replicas;
    const v1::StepReport& mine = *step.reports[static_cast<size_t>(rank)];
    const v1::StepReport& expected = *step.reports[static_cast<size_t>(first)];
    if (mine.weights_hash() == 0 || expected.weights_hash() == 0 ||
        mine.weights_hash() == expected.weights_hash()) {
      continue;
    }
    return absl::DataLossError(absl::StrFormat(
        "the weights of stage %d differ between its replicas after step %d: "
        "%s has hash %016x, %s has %016x; the replicas did not apply the same "
        "updates",
        StageOf(rank), mine.step() + 1, Describe(first),
        expected.weights_hash(), Describe(rank), mine.weights_hash()));
  }
  return absl::OkStatus();
}

v1::ByteCounters StepAggregator::TotalBytes() const {
  v1::ByteCounters total = former_bytes_;
  for (const v1::ByteCounters& bytes : bytes_) AddTo(bytes, &total);
  return total;
}

v1::FaultCounters StepAggregator::TotalFaults() const {
  v1::FaultCounters total = former_faults_;
  for (const v1::FaultCounters& faults : faults_) AddTo(faults, &total);
  return total;
}

void StepAggregator::GoBackTo(int64_t step, int64_t samples_dropped,
                              std::vector<std::string> worker_ids) {
  former_bytes_ = TotalBytes();
  former_faults_ = TotalFaults();
  bytes_.assign(bytes_.size(), {});
  faults_.assign(faults_.size(), {});
  shape_.worker_ids = std::move(worker_ids);
  open_.clear();
  validations_.clear();
  last_steps_.assign(last_steps_.size(), step - 1);
  num_complete_ = step;
  last_complete_ = step - 1;
  samples_dropped_ = samples_dropped;
}

void StepAggregator::Save(v1::JobProgress* progress) const {
  for (size_t rank = 0; rank < last_steps_.size(); ++rank) {
    if (progress->ranks_size() <= static_cast<int>(rank)) progress->add_ranks();
    auto* saved = progress->mutable_ranks(static_cast<int>(rank));
    saved->set_last_step(last_steps_[rank]);
    *saved->mutable_bytes() = bytes_[rank];
    *saved->mutable_faults() = faults_[rank];
  }
  for (const auto& [number, step] : open_) {
    for (size_t rank = 0; rank < step.reports.size(); ++rank) {
      if (!step.reports[rank].has_value()) continue;
      auto* saved = progress->add_open_reports();
      saved->set_rank(static_cast<int>(rank));
      *saved->mutable_report() = *step.reports[rank];
    }
  }
  for (const auto& [number, reports] : validations_) {
    for (size_t replica = 0; replica < reports.size(); ++replica) {
      if (!reports[replica].has_value()) continue;
      auto* saved = progress->add_open_validations();
      saved->set_rank((shape_.num_stages - 1) * shape_.num_replicas +
                      static_cast<int>(replica));
      *saved->mutable_report() = *reports[replica];
    }
  }
  progress->set_num_complete(num_complete_);
  progress->set_last_complete(last_complete_);
  progress->set_samples_dropped(samples_dropped_);
  ListExecuted(progress->mutable_executed());
  progress->set_total_tokens(total_tokens_);
  progress->set_total_seconds(total_seconds_);
  progress->set_train_loss(train_loss_);
  progress->set_validation_loss(validation_loss_);
  if (validation_accuracy_.has_value()) {
    progress->set_validation_accuracy(*validation_accuracy_);
  }
  *progress->mutable_step_seconds() = {step_seconds_.begin(),
                                       step_seconds_.end()};
  *progress->mutable_step_tokens() = {step_tokens_.begin(), step_tokens_.end()};
  *progress->mutable_former_bytes() = former_bytes_;
  *progress->mutable_former_faults() = former_faults_;
}

absl::Status StepAggregator::Load(const v1::JobProgress& progress) {
  if (progress.ranks_size() != num_ranks_) {
    return absl::InternalError(absl::StrCat("the stored progress is of ",
                                            progress.ranks_size(),
                                            " ranks, expected ", num_ranks_));
  }
  num_complete_ = progress.num_complete();
  last_complete_ = progress.last_complete();
  samples_dropped_ = progress.samples_dropped();
  executed_.clear();
  for (const v1::ExecutedStep& saved : progress.executed()) {
    executed_[saved.step()] = saved;
  }
  total_tokens_ = progress.total_tokens();
  total_seconds_ = progress.total_seconds();
  train_loss_ = progress.train_loss();
  validation_loss_ = progress.validation_loss();
  validation_accuracy_.reset();
  if (progress.has_validation_accuracy()) {
    validation_accuracy_ = progress.validation_accuracy();
  }
  step_seconds_.assign(progress.step_seconds().begin(),
                       progress.step_seconds().end());
  step_tokens_.assign(progress.step_tokens().begin(),
                      progress.step_tokens().end());
  former_bytes_ = progress.former_bytes();
  former_faults_ = progress.former_faults();
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const auto& saved = progress.ranks(rank);
    const size_t index = static_cast<size_t>(rank);
    last_steps_[index] = saved.last_step();
    bytes_[index] = saved.bytes();
    faults_[index] = saved.faults();
  }
  for (const auto& saved : progress.open_reports()) {
    if (saved.rank() < 0 || saved.rank() >= num_ranks_) continue;
    Step& step = open_[saved.report().step()];
    step.reports.resize(static_cast<size_t>(num_ranks_));
    step.reports[static_cast<size_t>(saved.rank())] = saved.report();
    ++step.num_reports;
  }
  for (const auto& saved : progress.open_validations()) {
    AddValidation(saved.rank(), saved.report());
  }
  return absl::OkStatus();
}

void StepAggregator::ListExecuted(
    google::protobuf::RepeatedPtrField<v1::ExecutedStep>* steps) const {
  for (const auto& [number, step] : executed_) *steps->Add() = step;
}

void StepAggregator::ForgetExecutedBefore(int64_t step) {
  executed_.erase(executed_.begin(), executed_.lower_bound(step));
}

void StepAggregator::NoteExecuted(const Step& step) {
  const v1::StepReport& first = *step.reports[0];
  const int64_t num_steps = first.microbatches_size();
  for (int64_t i = 0; i < num_steps; ++i) {
    v1::ExecutedStep executed;
    executed.set_step(first.step() - num_steps + 1 + i);
    bool is_uneven = false;
    for (int replica = 0; replica < shape_.num_replicas; ++replica) {
      const v1::StepReport& report =
          *step.reports[static_cast<size_t>(replica)];
      if (report.microbatches_size() != num_steps) return;
      executed.add_microbatches(report.microbatches(static_cast<int>(i)));
      if (report.planned_microbatches_size() != num_steps) continue;
      executed.add_planned(report.planned_microbatches(static_cast<int>(i)));
      is_uneven |= executed.planned(0) != *executed.planned().rbegin();
    }
    // Even ones are the plan's.
    if (!is_uneven) executed.clear_planned();
    executed_[executed.step()] = std::move(executed);
  }
  while (executed_.size() > kMaxExecutedSteps) {
    executed_.erase(executed_.begin());
  }
}

v1::StepSummary StepAggregator::Summarise(const Step& step) {
  v1::StepSummary summary;
  double loss_sum = 0;
  double loss_weight = 0;
  int64_t num_left_out = 0;
  int64_t tokens = 0;
  int64_t first_stage_tokens = 0;
  int64_t num_steps = 1;
  int64_t num_skipped = 0;
  bool is_compressed = true;
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const v1::StepReport& report = *step.reports[static_cast<size_t>(rank)];
    summary.set_step(report.step());
    if (report.has_loss()) {
      // By what each replica did in the last step.
      const double weight =
          report.microbatches_size() == 0 ? 1 : *report.microbatches().rbegin();
      loss_sum += weight * report.loss();
      loss_weight += weight;
      tokens += report.tokens();
    }
    if (StageOf(rank) == 0) {
      first_stage_tokens += report.tokens();
      num_left_out += report.dropped_samples();
    }
    is_compressed = is_compressed && report.compressed();
    num_steps = std::max(num_steps, report.steps());
    num_skipped = std::max(num_skipped, report.skipped_steps());
    summary.set_gradient_norm(
        std::max(summary.gradient_norm(), report.gradient_norm()));
    summary.set_learning_rate(
        std::max(summary.learning_rate(), report.learning_rate()));
    summary.set_step_seconds(
        std::max(summary.step_seconds(), report.step_seconds()));
    summary.set_compute_seconds(
        std::max(summary.compute_seconds(), report.compute_seconds()));
    summary.set_wait_seconds(
        std::max(summary.wait_seconds(), report.wait_seconds()));
    summary.set_reduce_seconds(
        std::max(summary.reduce_seconds(), report.reduce_seconds()));
  }
  if (tokens == 0) tokens = first_stage_tokens;
  const double total_seconds = summary.step_seconds();
  const double share = 1.0 / static_cast<double>(num_steps);
  summary.set_step_seconds(summary.step_seconds() * share);
  summary.set_compute_seconds(summary.compute_seconds() * share);
  summary.set_wait_seconds(summary.wait_seconds() * share);
  summary.set_reduce_seconds(summary.reduce_seconds() * share);
  summary.set_skipped(num_skipped > 0);
  summary.set_total_steps(shape_.total_steps);
  summary.set_compressed(is_compressed);
  if (loss_weight > 0) {
    train_loss_ = loss_sum / loss_weight;
    summary.set_loss(train_loss_);
  }

  num_complete_ += num_steps;
  last_complete_ = std::max(last_complete_, summary.step());
  samples_dropped_ += num_skipped * shape_.batch_samples + num_left_out;
  NoteExecuted(step);
  total_tokens_ += tokens;
  total_seconds_ += total_seconds;
  step_seconds_.push_back(static_cast<float>(summary.step_seconds()));
  step_tokens_.push_back(tokens / num_steps);
  if (step_seconds_.size() > kMaxTimedSteps) {
    step_seconds_.pop_front();
    step_tokens_.pop_front();
  }
  double seconds = 0;
  int64_t recent_tokens = 0;
  const size_t num_recent = std::min(kRateSteps, step_seconds_.size());
  for (size_t i = step_seconds_.size() - num_recent; i < step_seconds_.size();
       ++i) {
    seconds += step_seconds_[i];
    recent_tokens += step_tokens_[i];
  }
  if (seconds > 0) {
    summary.set_tokens_per_second(static_cast<double>(recent_tokens) / seconds);
  }
  // As of this step: who is ahead has reported more since.
  v1::ByteCounters bytes = former_bytes_;
  for (const auto& report : step.reports) {
    AddTo(report->bytes(), &bytes);
  }
  summary.set_activation_raw_bytes(bytes.activation_raw());
  summary.set_activation_wire_bytes(bytes.activation_wire());
  summary.set_gradient_raw_bytes(bytes.gradient_raw());
  summary.set_gradient_wire_bytes(bytes.gradient_wire());
  *summary.mutable_faults() = TotalFaults();
  return summary;
}

std::optional<ValidationSummary> StepAggregator::AddValidation(
    int rank, const v1::ValidationReport& report) {
  // Only the last stage knows a loss.
  if (StageOf(rank) != shape_.num_stages - 1) return std::nullopt;
  auto& reports = validations_[report.step()];
  reports.resize(static_cast<size_t>(shape_.num_replicas));
  reports[static_cast<size_t>(rank % shape_.num_replicas)] = report;
  ValidationSummary summary;
  summary.step = report.step();
  double weighted = 0;
  int64_t correct = 0;
  bool has_predictions = true;
  for (const auto& share : reports) {
    if (!share.has_value()) return std::nullopt;
    weighted += share->loss() * static_cast<double>(share->tokens());
    summary.tokens += share->tokens();
    correct += share->correct();
    has_predictions = has_predictions && share->has_correct();
  }
  if (summary.tokens > 0) {
    const double tokens = static_cast<double>(summary.tokens);
    summary.loss = weighted / tokens;
    if (has_predictions)
      summary.accuracy = static_cast<double>(correct) / tokens;
  }
  validation_loss_ = summary.loss;
  validation_accuracy_ = summary.accuracy;
  validations_.erase(validations_.begin(),
                     validations_.upper_bound(report.step()));
  return summary;
}

void StepAggregator::SetBytes(int rank, const v1::ByteCounters& bytes) {
  bytes_[static_cast<size_t>(rank)] = bytes;
}

v1::JobResult StepAggregator::Result() const {
  v1::JobResult result;
  result.set_steps(num_complete_);
  result.set_train_loss(train_loss_);
  result.set_validation_loss(validation_loss_);
  if (validation_accuracy_.has_value()) {
    result.set_validation_accuracy(*validation_accuracy_);
  }
  if (total_seconds_ > 0) {
    result.set_tokens_per_second(static_cast<double>(total_tokens_) /
                                 total_seconds_);
  }
  const v1::ByteCounters bytes = TotalBytes();
  result.set_activation_raw_bytes(bytes.activation_raw());
  result.set_activation_wire_bytes(bytes.activation_wire());
  result.set_gradient_raw_bytes(bytes.gradient_raw());
  result.set_gradient_wire_bytes(bytes.gradient_wire());
  result.set_evaluation_wire_bytes(bytes.evaluation_wire());
  result.set_other_wire_bytes(bytes.other_wire());
  result.set_saved_raw_bytes(bytes.saved_raw());
  result.set_saved_stored_bytes(bytes.saved_stored());
  *result.mutable_faults() = TotalFaults();
  result.set_samples_applied(num_complete_ * shape_.batch_samples -
                             samples_dropped_);
  result.set_samples_dropped(samples_dropped_);
  if (!step_seconds_.empty()) {
    std::vector<float> seconds(step_seconds_.begin(), step_seconds_.end());
    const auto middle =
        seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
    std::nth_element(seconds.begin(), middle, seconds.end());
    result.set_seconds_per_step(*middle);
  }
  return result;
}

}  // namespace deltapipe
