// Knobs that change while training runs: prepared between two messages, in
// force between two steps, at all workers between the same two.
#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/straggler_policy.h"
#include "base/units.h"
#include "compression/delta/boundary_codec.h"
#include "worker/engine/training_step.h"

namespace deltapipe {
namespace {

/// 0: unlimited.
absl::StatusOr<double> RateOf(const v1::BoundaryTuning& boundary) {
  if (boundary.rate_limit().empty()) return 0.0;
  return ParseBandwidth(boundary.rate_limit());
}

}  // namespace

const v1::BoundaryTuning* Training::TuningOf(const v1::Tuning& tuning,
                                             int boundary) const {
  for (const v1::BoundaryTuning& tuned : tuning.boundaries()) {
    if (tuned.boundary() == boundary) return &tuned;
  }
  return nullptr;
}

absl::StatusOr<LatencyModel> Training::InjectedBy(
    const v1::Tuning& tuning) const {
  DP_ASSIGN_OR_RETURN(LatencyModel model,
                      LatencyModel::Parse(tuning.inject(), spec_.seed()));
  DP_RETURN_IF_ERROR(model.CheckReplicas(num_replicas_));
  return model;
}

absl::Status Training::PrepareTuning(const v1::Tuning& tuning) {
  for (const int boundary : {stage_index_ - 1, stage_index_}) {
    const v1::BoundaryTuning* tuned = TuningOf(tuning, boundary);
    if (tuned == nullptr) continue;
    DP_RETURN_IF_ERROR(CheckBoundaryCodec(tuned->activations(), nullptr));
    DP_RETURN_IF_ERROR(
        CheckBoundaryCodec(tuned->activation_gradients(), nullptr));
    DP_RETURN_IF_ERROR(RateOf(*tuned).status());
  }
  const std::string& gradients = tuning.gradients();
  // What a job that compresses sends fits any codec, but is no plain gradient.
  const bool compresses = !GradientSync::IsPlainCodec(plan_.gradient_codec());
  if (compresses ? gradients == "none"
                 : !GradientSync::IsPlainCodec(gradients)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "gradients cannot change from ", plan_.gradient_codec(), " to ",
        gradients,
        " while the job runs: one is compressed with error feedback, the other "
        "is not; ",
        compresses ? "take cast(bf16), or start a job with it"
                   : "start a job with it"));
  }
  DP_RETURN_IF_ERROR(GradientSync::CheckCodec(gradients));
  if (tuning.saved_activations() != "none") {
    const SavedActivations* saved = versions_->newest()->saved_activations();
    if (saved == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("saved activations '", tuning.saved_activations(),
                       "': a ", spec_.model().kind(), " model saves none"));
    }
    DP_RETURN_IF_ERROR(saved->CheckPolicy(tuning.saved_activations()));
  }
  const std::string& policy = tuning.straggler_policy();
  if (policy != "none" && policy != "detect" && !MayDropWork(policy) &&
      !MayMoveWork(policy)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "stragglers '", policy,
        "': this worker knows none, detect, drop, rebalance and auto"));
  }
  if (MayDropWork(policy) && !MayDropWork(spec_.stragglers().policy())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "stragglers '", policy,
        "': work can be left out only in a job that began so, because it fixes "
        "the order of the samples: start one with stragglers.policy: ",
        policy));
  }
  if (MayMoveWork(policy) &&
      plan_.max_microbatches() <= plan_.num_microbatches()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "stragglers '", policy, "': this job's plan has room for ",
        plan_.num_microbatches(),
        " micro-batches a replica and no more, so that none can be moved: "
        "start one with stragglers.policy: ",
        policy));
  }
  DP_RETURN_IF_ERROR(InjectedBy(tuning).status());
  MutexLock lock(&mutex_);
  prepared_[tuning.revision()] = tuning;
  return absl::OkStatus();
}

void Training::DecideTuning(uint32_t revision, bool commit) {
  MutexLock lock(&mutex_);
  if (prepared_.count(revision) == 0) return;
  if (commit) {
    decided_revision_ = revision;
  } else {
    prepared_.erase(revision);
  }
}

absl::Status Training::ApplyTuning(int64_t done) {
  v1::Tuning next;
  {
    MutexLock lock(&mutex_);
    const auto found = prepared_.find(agreed_.tuning_revision);
    if (found == prepared_.end()) {
      return absl::InternalError(
          absl::StrCat("the workers agreed on tuning ", agreed_.tuning_revision,
                       ", which this one has not prepared"));
    }
    next = found->second;
    prepared_.erase(prepared_.begin(), std::next(found));
  }
  const uint32_t last = static_cast<uint32_t>(done - 1);
  const auto set = [&](BoundaryEnd* end, int boundary) -> absl::Status {
    const v1::BoundaryTuning* tuned = TuningOf(next, boundary);
    if (end == nullptr || tuned == nullptr) return absl::OkStatus();
    return end->SetCodecs(tuned->activations(), tuned->activation_gradients(),
                          next.revision(), last);
  };
  DP_RETURN_IF_ERROR(set(previous_.get(), stage_index_ - 1));
  DP_RETURN_IF_ERROR(set(next_.get(), stage_index_));
  const auto [compressed_codec, plain_codec] = SyncCodecs(next.gradients());
  DP_RETURN_IF_ERROR(sync_->SetCodecs(compressed_codec, plain_codec));
  if (tied_ != nullptr) {
    DP_RETURN_IF_ERROR(tied_->SetCodecs(compressed_codec, plain_codec));
  }
  if (next.straggler_policy() != tuning_.straggler_policy()) {
    DP_RETURN_IF_ERROR(MakeStragglerControl(next.straggler_policy()));
  }
  if (next.saved_activations() != tuning_.saved_activations()) {
    for (SavedActivations* saved : AllSavedActivations()) {
      DP_RETURN_IF_ERROR(saved->SetPolicy(next.saved_activations()));
    }
  }
  DP_ASSIGN_OR_RETURN(injected_, InjectedBy(next));
  DP_RETURN_IF_ERROR(ApplyRates(next));
  Failpoint("tuned");
  tuning_ = next;
  LOG_INFO << "tuning " << next.revision() << " holds from step " << done + 1
           << " on";
  if (!options_.send) return absl::OkStatus();
  v1::WorkerMessage message;
  v1::TuningApplied& applied = *message.mutable_tuning_applied();
  applied.set_job_id(options_.assignment.job_id());
  applied.set_generation(options_.assignment.generation());
  applied.set_revision(next.revision());
  applied.set_effective_step(done);
  options_.send(std::move(message));
  return absl::OkStatus();
}

absl::Status Training::ApplyRates(const v1::Tuning& tuning) {
  const auto apply = [&](LinkShaper* link, int boundary) -> absl::Status {
    const v1::BoundaryTuning* tuned = TuningOf(tuning, boundary);
    if (link == nullptr || tuned == nullptr) return absl::OkStatus();
    DP_ASSIGN_OR_RETURN(const double limit, RateOf(*tuned));
    const double emulated = emulated_.bits_per_second;
    link->SetRate(limit == 0      ? emulated
                  : emulated == 0 ? limit
                                  : std::min(limit, emulated));
    return absl::OkStatus();
  };
  DP_RETURN_IF_ERROR(apply(previous_link_.get(), stage_index_ - 1));
  return apply(next_link_.get(), stage_index_);
}

}  // namespace deltapipe
