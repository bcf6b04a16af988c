// Knobs that change while a job runs: prepared on all workers or refused, and
// in force from one step on, which the workers agree on among themselves.
#include <google/protobuf/util/json_util.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "coordinator/background/job_actor.h"
#include "coordinator/spec/synchronisation.h"
#include "coordinator/tuning/bit_budget.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

/// Workers answer between two messages, not between two steps.
constexpr Nanos kPreparePatience = std::chrono::seconds(5);

}  // namespace

std::string JobActor::TuningJson() const {
  std::string json;
  // Fails for strings that are not UTF-8, which were refused before.
  const auto written =
      google::protobuf::util::MessageToJsonString(tuning_, &json);
  return written.ok() ? json : std::string("{}");
}

void JobActor::On(const TuningRequested& request) {
  if (pending_tuning_.has_value() && !request.is_look) {
    waiting_tunings_.push_back(request);
    return;
  }
  BeginTuning(request);
}

void JobActor::LoadTuningAnswers(const std::string& text) {
  auto answers = TuningAnswers::Read(text);
  if (!answers.ok()) {
    // A request that is sent again may change something once more.
    LOG_WARNING << job_.id() << ": " << answers.status().message();
    return;
  }
  tuning_answers_ = *std::move(answers);
}

bool JobActor::RepeatAnswer(const TuningRequested& request) {
  const auto known = tuning_answers_.Find(request.key);
  if (known.ok() && !known->has_value()) return false;
  request.reply(known.ok() ? absl::StatusOr<v1::Tuning>(**known)
                           : absl::StatusOr<v1::Tuning>(known.status()));
  return true;
}

absl::Status JobActor::RememberAnswer(const TuningRequestKey& key,
                                      const v1::Tuning& answer) {
  if (key.id.empty()) return absl::OkStatus();
  tuning_answers_.Remember(key, answer);
  are_answers_dirty_ = true;
  return Store({job_.id(), std::nullopt, std::nullopt, std::nullopt});
}

void JobActor::BeginTuning(const TuningRequested& request) {
  if (RepeatAnswer(request)) return;
  if (plan_.num_stages() == 0) {
    request.reply(absl::FailedPreconditionError(absl::StrCat(
        "job '", job_.id(),
        "' has no plan yet: its knobs can be set once it has its workers")));
    return;
  }
  if (tuning_.revision() == 0) {
    tuning_ = InitialTuning(job_.id(), job_.spec(), plan_);
  }
  absl::StatusOr<v1::Tuning> next =
      request.make_next(tuning_, job_.spec(), plan_);
  if (!next.ok() || request.is_look) {
    request.reply(next);
    return;
  }
  if (next->revision() == tuning_.revision()) {
    const absl::Status stored = RememberAnswer(request.key, *next);
    request.reply(stored.ok() ? next : absl::StatusOr<v1::Tuning>(stored));
    return;
  }
  PendingTuning pending;
  pending.next = *std::move(next);
  pending.request = request;
  pending.is_prepared.resize(members_.size());
  pending.patience_end = services_.clock->Now() + kPreparePatience;
  pending_tuning_ = std::move(pending);
  if (phase_ == Phase::kWaiting || phase_ == Phase::kProfiling) {
    // Nobody runs it: the next assignments will say so.
    pending_tuning_->next.set_effective_step(step_);
    EndTuning(pending_tuning_->next);
    return;
  }
  if (phase_ != Phase::kRunning) {
    EndTuning(absl::FailedPreconditionError(
        absl::StrCat("job '", job_.id(), "' is ", StateName(job_.state()), " (",
                     job_.reason(), "): try again when it trains")));
    return;
  }
  SendToAll(PrepareMessage());
}

void JobActor::OnTuningAnswer(int rank, const v1::TuningAnswer& answer) {
  if (!pending_tuning_.has_value() || pending_tuning_->is_decided ||
      answer.revision() != pending_tuning_->next.revision()) {
    return;
  }
  const Member& member = members_[static_cast<size_t>(rank)];
  if (answer.error_code() != 0) {
    DecideTuning(false);
    EndTuning(absl::FailedPreconditionError(
        absl::StrCat(Describe(member), " cannot make the change, and nothing ",
                     "was changed: ", answer.error_message())));
    return;
  }
  pending_tuning_->is_prepared[static_cast<size_t>(rank)] = true;
  for (const bool is_prepared : pending_tuning_->is_prepared) {
    if (!is_prepared) return;
  }
  pending_tuning_->is_decided = true;
  tuning_answers_.Decide(pending_tuning_->request.key,
                         pending_tuning_->next.revision());
  are_answers_dirty_ |= !pending_tuning_->request.key.id.empty();
  // Workers apply what they are told to: a successor must know it by then.
  const absl::Status stored = StoreProgress();
  if (!stored.ok()) {
    DecideTuning(false);
    EndTuning(stored);
    return;
  }
  DecideTuning(true);
}

void JobActor::SaveDecidedTuning(v1::JobProgress* progress) const {
  if (!pending_tuning_.has_value() || !pending_tuning_->is_decided) return;
  auto* decided = progress->mutable_decided_tuning();
  *decided->mutable_tuning() = pending_tuning_->next;
  decided->set_principal(pending_tuning_->request.principal);
  decided->set_reason(pending_tuning_->request.reason);
}

void JobActor::LoadDecidedTuning(const v1::JobProgress& progress) {
  if (!progress.has_decided_tuning()) return;
  PendingTuning pending;
  pending.next = progress.decided_tuning().tuning();
  pending.request.principal = progress.decided_tuning().principal();
  pending.request.reason = progress.decided_tuning().reason();
  pending.request.key = tuning_answers_.DecidedAs(pending.next.revision());
  pending.request.reply = [](const absl::StatusOr<v1::Tuning>&) {};
  pending.is_decided = true;
  pending_tuning_ = std::move(pending);
}

v1::CoordinatorMessage JobActor::PrepareMessage() const {
  v1::CoordinatorMessage message;
  v1::PrepareTuning& prepare = *message.mutable_prepare_tuning();
  prepare.set_job_id(job_.id());
  prepare.set_generation(job_.generation());
  *prepare.mutable_tuning() = pending_tuning_->next;
  return message;
}

v1::CoordinatorMessage JobActor::DecideMessage(bool commit) const {
  v1::CoordinatorMessage message;
  v1::DecideTuning& decide = *message.mutable_decide_tuning();
  decide.set_job_id(job_.id());
  decide.set_generation(job_.generation());
  decide.set_revision(pending_tuning_->next.revision());
  decide.set_commit(commit);
  return message;
}

void JobActor::DecideTuning(bool commit) { SendToAll(DecideMessage(commit)); }

void JobActor::ResendTuning(const Member& member) {
  if (!pending_tuning_.has_value()) return;
  services_.roster->Send(member.info.id, PrepareMessage());
  if (pending_tuning_->is_decided) {
    services_.roster->Send(member.info.id, DecideMessage(true));
  }
}

void JobActor::OnTuningApplied(const v1::TuningApplied& applied) {
  if (!pending_tuning_.has_value() ||
      applied.revision() != pending_tuning_->next.revision()) {
    return;
  }
  v1::Tuning next = pending_tuning_->next;
  next.set_effective_step(applied.effective_step());
  EndTuning(next);
}

void JobActor::EndTuning(const absl::StatusOr<v1::Tuning>& outcome) {
  if (!pending_tuning_.has_value()) return;
  const TuningRequested request = pending_tuning_->request;
  pending_tuning_.reset();
  absl::StatusOr<v1::Tuning> answer = outcome;
  are_answers_dirty_ |= !request.key.id.empty();
  tuning_answers_.Drop(request.key);
  if (outcome.ok()) {
    tuning_answers_.Remember(request.key, *outcome);
    const TuningDifference difference = DescribeChange(tuning_, *outcome);
    tuning_ = *outcome;
    v1::JobEvent event;
    event.set_kind("tuning");
    event.set_state(job_.state());
    v1::TuningChange* change = event.mutable_tuning();
    change->set_principal(request.principal);
    change->set_old_value(difference.old_value);
    change->set_new_value(difference.new_value);
    change->set_effective_step(tuning_.effective_step());
    change->set_reason(request.reason);
    event.set_text(absl::StrCat(
        request.principal.empty() ? "somebody" : request.principal, " set ",
        difference.new_value, " (was ", difference.old_value, ") from step ",
        tuning_.effective_step() + 1, " on",
        request.reason.empty() ? "" : absl::StrCat(": ", request.reason)));
    JobChange stored{job_.id(), job_, std::nullopt, std::move(event)};
    if (aggregator_ != nullptr) stored.progress = Progress();
    const absl::Status recorded = Store(std::move(stored));
    if (!recorded.ok()) answer = recorded;
  }
  request.reply(answer);
  // Those that need no worker are answered at once.
  while (!pending_tuning_.has_value() && !waiting_tunings_.empty()) {
    const TuningRequested waiting = std::move(waiting_tunings_.front());
    waiting_tunings_.pop_front();
    On(waiting);
  }
}

void JobActor::TuneByMeasurement(const v1::StepSummary& summary) {
  const bool has_budget = tuning_.budget_bytes_per_step() > 0;
  const v1::Tuner::Mode mode = tuning_.tuner().mode();
  const bool has_tuner = mode == v1::Tuner::PROPOSE || mode == v1::Tuner::APPLY;
  if (phase_ != Phase::kRunning || pending_tuning_.has_value()) return;
  const std::vector<LinkSample> samples =
      meter_.Take(job_.spec().parallel().replicas());
  if (samples.empty() || (!has_budget && !has_tuner)) return;
  if (!has_budget) {
    TunerObservation observation;
    observation.step = summary.step();
    observation.compute_seconds = summary.compute_seconds();
    observation.links = samples;
    const auto proposal =
        ProposeTuning(tuning_, job_.spec(), plan_, observation, &tuner_);
    if (!proposal.ok()) {
      LOG_WARNING << job_.id()
                  << ": the tuner: " << proposal.status().message();
    } else if (proposal->has_value()) {
      ProposeOrApply(**proposal);
    }
    return;
  }
  TuningRequested request;
  request.principal = "the budget";
  request.reason = "what was measured misses it";
  request.make_next = [samples](const v1::Tuning& current,
                                const v1::JobSpec& spec, const v1::Plan& plan) {
    return KeepBudget(current, spec, plan, samples);
  };
  request.reply = [id = job_.id()](const absl::StatusOr<v1::Tuning>& kept) {
    if (!kept.ok()) {
      LOG_WARNING << id << ": " << kept.status().message();
    }
  };
  On(request);
}

void JobActor::ProposeOrApply(const TunerProposal& proposal) {
  if (tuning_.tuner().mode() == v1::Tuner::PROPOSE) {
    const TuningDifference difference =
        DescribeChange(tuning_, proposal.tuning);
    RecordEvent(
        "tuning",
        absl::StrCat("the tuner proposes ", difference.new_value, " (is ",
                     difference.old_value, "): ", proposal.reason));
    return;
  }
  TuningRequested request;
  request.principal = "the tuner";
  request.reason = proposal.reason;
  request.make_next = [next = proposal.tuning](const v1::Tuning& current,
                                               const v1::JobSpec&,
                                               const v1::Plan&) {
    // Somebody may have set something meanwhile.
    return next.revision() == current.revision() + 1 ? next : current;
  };
  request.reply = [id = job_.id()](const absl::StatusOr<v1::Tuning>& applied) {
    if (!applied.ok()) {
      LOG_WARNING << id << ": the tuner: " << applied.status().message();
    }
  };
  On(request);
}

void JobActor::JudgeCompression() {
  if (phase_ != Phase::kRunning || pending_tuning_.has_value()) return;
  const auto forecast =
      sync_meter_.Take(plan_.num_stages(), job_.spec().parallel().replicas());
  if (!forecast.has_value()) return;
  const std::string& gradients = tuning_.gradients().empty()
                                     ? plan_.gradient_codec()
                                     : tuning_.gradients();
  const bool compresses = !IsPlainGradientCodec(gradients);
  const bool is_first = !verdict_.has_value();
  const bool is_overruled = !is_first &&
                            tuning_.revision() != verdict_revision_ &&
                            compresses != verdict_->compresses();
  is_verdict_overruled_ |= is_overruled;
  verdict_revision_ = tuning_.revision();
  if (is_first || is_overruled) {
    CompressionVerdictOptions options;
    options.compresses = compresses;
    verdict_ = *CompressionVerdict::Create(options);
  }
  const std::string change = verdict_->Update(*forecast);
  if (change.empty()) {
    if (!is_first) return;
    RecordEvent("compression",
                absl::StrCat(CompressionVerdict::Helps(*forecast)
                                 ? "compression helps: "
                                 : "compression does not help so far: ",
                             ForecastText(*forecast)));
    return;
  }
  const v1::CompressionSpec& spec = job_.spec().compression();
  const bool applies = spec.verdict() == "apply" ||
                       (spec.verdict() == "auto" && spec.gradients() == "auto");
  const std::string codec =
      verdict_->compresses() ? plan_.gradient_codec() : "cast(bf16)";
  if (!applies || is_verdict_overruled_) {
    RecordEvent("compression",
                absl::StrCat(change, "; `deltapipe set ", job_.id(),
                             " gradients=", codec, "` would change it"));
    return;
  }
  TuningRequested request;
  request.principal = "the verdict";
  request.reason = change;
  request.make_next = [codec](const v1::Tuning& current, const v1::JobSpec& job,
                              const v1::Plan& plan) {
    v1::UpdateTuningRequest update;
    update.mutable_tuning()->set_gradients(codec);
    return ApplyUpdate(current, update, job, plan);
  };
  request.reply = [this](const absl::StatusOr<v1::Tuning>& applied) {
    if (applied.ok()) return;
    LOG_WARNING << job_.id() << ": the verdict on compression: "
                << applied.status().message();
    verdict_.reset();
  };
  On(request);
}

}  // namespace deltapipe
