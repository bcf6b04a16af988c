// What a worker tells the coordinator about its steps, and its byte counts.
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <utility>

#include "base/image_model.h"
#include "base/log.h"
#include "worker/engine/training_step.h"

namespace deltapipe {
namespace {

/// Of this process; 0 if the system does not say.
int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  file >> total_pages >> resident_pages;
  return file.good() ? resident_pages * sysconf(_SC_PAGESIZE) : 0;
}

/// `before` is what the counters were at the last report.
void AddLink(const BoundaryEnd* end, int boundary, bool is_gradient,
             BoundaryEnd::Counters* before, v1::StepReport* report) {
  if (end == nullptr) return;
  const BoundaryEnd::Counters counters = end->counters();
  v1::LinkReport* link = report->add_links();
  link->set_boundary(boundary);
  link->set_is_gradient(is_gradient);
  link->set_codec(end->outgoing_codec());
  link->set_raw_bytes(counters.sent.raw_bytes);
  link->set_wire_bytes(counters.wire_bytes - counters.evaluation_wire_bytes);
  link->set_send_seconds(counters.busy_seconds);
  link->set_round_trip_seconds(counters.round_trip_seconds);
  const double values =
      counters.sent.probed_value_squares - before->sent.probed_value_squares;
  const double errors =
      counters.sent.probed_error_squares - before->sent.probed_error_squares;
  if (values > 0) link->set_relative_error(std::sqrt(errors / values));
  link->set_not_finite(counters.sent.not_finite);
  v1::PhaseSeconds* const phases = report->mutable_phases();
  phases->set_encode(phases->encode() + counters.encode_seconds -
                     before->encode_seconds);
  phases->set_decode(phases->decode() + counters.decode_seconds -
                     before->decode_seconds);
  phases->set_send_wait(phases->send_wait() + counters.send_wait_seconds -
                        before->send_wait_seconds);
  *before = counters;
}

}  // namespace

void Training::Report(const StepState& state) {
  if (!options_.on_step) return;
  v1::StepReport& report = report_;
  report.set_job_id(options_.assignment.job_id());
  report.set_generation(options_.assignment.generation());
  report.set_step(state.step);
  report.set_steps(report.steps() + 1);
  report.set_has_loss(is_last() && state.end > 0);
  if (report.has_loss()) report.set_loss(state.loss_sum / state.end);
  int64_t tokens = 0;
  for (int mb = 0; mb < state.end; ++mb) {
    tokens += static_cast<int64_t>(
        state.batch[static_cast<size_t>(mb)].samples.size());
  }
  // Those of the step; counts_ may be the next one's already.
  const int planned = last_counts_[static_cast<size_t>(replica_)];
  if (MayLeaveOut() || counts_->has_room()) {
    report.add_microbatches(state.end);
    if (!state.is_skipped) {
      report.set_dropped_samples(report.dropped_samples() +
                                 (planned - state.end) *
                                     plan_.microbatch_samples());
    }
  }
  if (counts_->has_room()) report.add_planned_microbatches(planned);
  report.set_tokens(
      report.tokens() +
      tokens * TargetsPerSample(spec_.model().kind(), spec_.model().context()));
  report.set_gradient_norm(state.gradient_norm);
  report.set_learning_rate(LearningRateAt(state.step));
  if (loss_scale_.is_used()) report.set_loss_scale(state.gradient_scale);
  report.set_step_seconds(report.step_seconds() + SecondsSince(state.begin));
  report.set_compute_seconds(report.compute_seconds() + state.forward_seconds +
                             state.backward_seconds);
  report.set_wait_seconds(report.wait_seconds() + state.wait_seconds);
  report.set_reduce_seconds(report.reduce_seconds() + state.reduce_seconds);
  v1::PhaseSeconds* const phases = report.mutable_phases();
  phases->set_forward(phases->forward() + state.forward_seconds);
  phases->set_backward(phases->backward() + state.backward_seconds);
  phases->set_optimizer(phases->optimizer() + state.optimizer_seconds);
  phases->set_receive_wait(phases->receive_wait() + state.wait_seconds);
  phases->set_data(phases->data() + state.data_seconds);
  report.set_skipped_steps(report.skipped_steps() + (state.is_skipped ? 1 : 0));
  const int delay = static_cast<int>(state.weight_delay);
  while (report.microbatches_by_delay_size() <= delay) {
    report.add_microbatches_by_delay(0);
  }
  report.set_microbatches_by_delay(
      delay, report.microbatches_by_delay(delay) + state.end);
  report.set_compressed(state.format != SyncFormat::kPlain);
  if (state.weights_hash != 0) report.set_weights_hash(state.weights_hash);
  const int64_t done = state.step + 1;
  if (done % spec_.train().report_every() != 0 &&
      done != spec_.train().steps() && !agreed_.stops && !agreed_.pauses) {
    return;
  }
  report.set_tuning_revision(tuning_.revision());
  report.set_memory_bytes(ResidentBytes());
  if (stragglers_ != nullptr) {
    *report.mutable_stragglers() = stragglers_->report();
  }
  AddLink(previous_.get(), stage_index_ - 1, /*is_gradient=*/true,
          &reported_gradients_, &report);
  AddLink(next_.get(), stage_index_, /*is_gradient=*/false,
          &reported_activations_, &report);
  if (sync_measure_ != nullptr) {
    v1::SyncReport sync = sync_measure_->Take();
    if (sync.transactions() > 0) *report.mutable_sync() = std::move(sync);
  }
  ReportSaved(&report);
  *report.mutable_bytes() = Bytes();
  *report.mutable_faults() = Faults();
  options_.on_step(report);
  report.Clear();
}

std::vector<SavedActivations*> Training::AllSavedActivations() const {
  std::vector<SavedActivations*> all;
  for (Stage* const stage : versions_->stages()) {
    if (SavedActivations* const saved = stage->saved_activations()) {
      all.push_back(saved);
    }
  }
  return all;
}

void Training::ReportSaved(v1::StepReport* report) {
  SavedBytes bytes;
  SavedFindings findings;
  for (SavedActivations* const saved : AllSavedActivations()) {
    bytes.Add(saved->TakeBytes());
    SavedFindings found = saved->TakeFindings();
    if (!found.errors.empty()) findings.errors = std::move(found.errors);
    for (std::string& change : found.changes) {
      LOG_WARNING << "saved activations: " << change;
      findings.changes.push_back(std::move(change));
    }
  }
  if (bytes.num_tensors == 0) return;
  saved_raw_bytes_ += bytes.unique;
  saved_stored_bytes_ += bytes.packed + bytes.passed + bytes.metadata;
  v1::SavedReport& saved = *report->mutable_saved();
  saved.set_tensors(bytes.num_tensors);
  saved.set_shared(bytes.num_shared);
  saved.set_not_finite(bytes.num_not_finite);
  saved.set_raw_bytes(bytes.raw);
  saved.set_unique_bytes(bytes.unique);
  saved.set_packed_bytes(bytes.packed);
  saved.set_passed_bytes(bytes.passed);
  saved.set_metadata_bytes(bytes.metadata);
  saved.set_peak_bytes(bytes.live_peak);
  saved.set_scratch_peak_bytes(bytes.scratch_peak);
  saved.set_offloaded_peak_bytes(bytes.offloaded_peak);
  for (const SavedFindings::Error& error : findings.errors) {
    v1::SavedError* const found = saved.add_errors();
    found->set_operator_(error.op);
    found->set_relative_error(error.relative_error);
  }
  for (std::string& change : findings.changes) {
    saved.add_changes(std::move(change));
  }
}

v1::FaultCounters Training::Faults() const {
  v1::FaultCounters faults;
  const auto add = [&](const FrameCounters& frames) {
    faults.set_frames_resent(faults.frames_resent() + frames.frames_resent);
    faults.set_bad_checksums(faults.bad_checksums() + frames.bad_checksums);
    faults.set_gaps(faults.gaps() + frames.gaps);
    faults.set_refused(faults.refused() + frames.refused_generation +
                       frames.refused_version + frames.refused_size);
  };
  for (const auto* end : {&previous_, &next_}) {
    if (*end == nullptr) continue;
    const BoundaryEnd::Counters counters = (*end)->counters();
    add(counters.frames);
    faults.set_keyframes(faults.keyframes() + counters.keyframes_requested);
  }
  mesh_.ForEach([&](FrameChannel* channel) { add(channel->counters()); });
  return faults;
}

v1::ByteCounters Training::Bytes() const {
  v1::ByteCounters bytes;
  for (const auto* end : {&previous_, &next_}) {
    if (*end == nullptr) continue;
    const BoundaryEnd::Counters counters = (*end)->counters();
    bytes.set_activation_raw(bytes.activation_raw() + counters.sent.raw_bytes);
    bytes.set_activation_wire(bytes.activation_wire() + counters.wire_bytes -
                              counters.evaluation_wire_bytes);
    bytes.set_evaluation_wire(bytes.evaluation_wire() +
                              counters.evaluation_wire_bytes);
    bytes.set_delta_rows(bytes.delta_rows() + counters.sent.delta_rows);
    bytes.set_value_rows(bytes.value_rows() + counters.sent.value_rows);
    bytes.set_state_bytes(bytes.state_bytes() + counters.state_bytes);
  }
  if (sync_ != nullptr) bytes.set_gradient_raw(sync_->counters().raw_bytes);
  if (tied_ != nullptr) {
    bytes.set_gradient_raw(bytes.gradient_raw() + tied_->counters().raw_bytes);
  }
  for (const auto* group : {&mesh_.gradients, &mesh_.tied}) {
    for (const auto& channel : *group) {
      if (channel == nullptr) continue;
      bytes.set_gradient_wire(bytes.gradient_wire() +
                              channel->channel_counters().bytes_sent);
    }
  }
  for (const auto* group : {&mesh_.stage_scalars, &mesh_.replica_scalars}) {
    for (const auto& channel : *group) {
      if (channel == nullptr) continue;
      bytes.set_other_wire(bytes.other_wire() +
                           channel->channel_counters().bytes_sent);
    }
  }
  bytes.set_saved_raw(saved_raw_bytes_);
  bytes.set_saved_stored(saved_stored_bytes_);
  return bytes;
}

}  // namespace deltapipe
