// Traces of steps: those that users ask for, and the samples by which
// stragglers are found. Never both at once, since workers do not say whom a
// trace is for.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "coordinator/background/job_actor.h"

namespace deltapipe {
namespace {

/// The cheapest of more are no news: bounds what figures and series show.
constexpr int kMaxToldStragglers = 20;

std::string KeyOf(const StragglerFinding& finding) {
  return absl::StrCat(finding.scope.stage, "/", finding.scope.replica, "/",
                      StragglerCauseName(finding.cause));
}

}  // namespace

void JobActor::BeginTraces() {
  trace_turns_.Begin(static_cast<int>(members_.size()));
  waiting_trace_steps_ = 0;
  next_sample_step_ = step_ + kSampleEverySteps;
  straggler_millis_.clear();
  const absl::Status begun = straggler_watch_.Begin(plan_);
  if (!begun.ok()) {
    LOG_WARNING << job_.id()
                << ": stragglers are not looked for: " << begun.message();
  }
}

bool JobActor::WatchesStragglers() const {
  return tuning_.straggler_policy() != "none";
}

void JobActor::On(const TraceRequested& request) {
  if (phase_ != Phase::kRunning) {
    request.reply(absl::FailedPreconditionError(
        absl::StrCat("job '", job_.id(), "' is ", StateName(job_.state()),
                     ": only one that trains can be traced")));
    return;
  }
  if (trace_turns_.owner() == TraceOwner::kSample) {
    // A few steps later; whoever waits for the traces does not notice. Traces
    // go to all users who wait, so that the longest request serves them.
    waiting_trace_steps_ = std::max(waiting_trace_steps_, request.steps);
  } else {
    SendTraceRequest(TraceOwner::kUser, request.steps);
  }
  request.reply(absl::OkStatus());
}

void JobActor::SendTraceRequest(TraceOwner owner, int steps) {
  trace_turns_.Ask(owner, steps, step_, services_.clock->Now());
  v1::CoordinatorMessage message;
  message.mutable_request_trace()->set_job_id(job_.id());
  message.mutable_request_trace()->set_generation(job_.generation());
  message.mutable_request_trace()->set_steps(steps);
  SendToAll(message);
}

void JobActor::AskForTraces() {
  const Nanos now = services_.clock->Now();
  trace_turns_.Expire(step_, now);
  const bool watches = WatchesStragglers();
  if (!watches && straggler_watch_.last_step() >= 0) {
    // What is not looked at any more is not known.
    straggler_millis_.clear();
    straggler_watch_.Begin(plan_).IgnoreError();  // as it did before
    PublishStragglers();
  }
  if (phase_ != Phase::kRunning ||
      trace_turns_.owner() != TraceOwner::kNobody) {
    return;
  }
  if (waiting_trace_steps_ > 0) {
    SendTraceRequest(TraceOwner::kUser, std::exchange(waiting_trace_steps_, 0));
  } else if (watches && step_ >= next_sample_step_ &&
             now - sampled_ >= kSampleInterval) {
    next_sample_step_ = step_ + kSampleEverySteps;
    sampled_ = now;
    SendTraceRequest(TraceOwner::kSample, straggler_watch_.BeginSample());
  }
}

void JobActor::OnTrace(int rank, const v1::StepTrace& trace) {
  if (trace_turns_.Take(rank) != TraceOwner::kSample) {
    if (services_.metrics == nullptr) return;
    const int num_replicas = job_.spec().parallel().replicas();
    services_.metrics->Traced(job_.id(), rank / num_replicas,
                              rank % num_replicas, trace);
    return;
  }
  straggler_watch_.AddTrace(rank, trace);
  if (trace_turns_.owner() != TraceOwner::kNobody) return;
  if (WatchesStragglers()) JudgeStragglers();
  AskForTraces();
}

void JobActor::JudgeStragglers() {
  const auto changes = straggler_watch_.EndSample();
  if (!changes.ok()) {
    // The next sample tells.
    if (!absl::IsFailedPrecondition(changes.status())) {
      LOG_WARNING << job_.id() << ": " << changes.status().message();
    }
    return;
  }
  for (const StragglerChange& change : *changes) {
    if (change.is_cleared) {
      straggler_millis_.erase(KeyOf(change.finding));
    } else {
      straggler_millis_[KeyOf(change.finding)] = services_.clock->WallMillis();
    }
    RecordEvent("warning", StragglerText(change));
  }
  if (!changes->empty()) SaveProgress();
  PublishStragglers();
}

StragglerMemory JobActor::RememberStragglers() {
  StragglerMemory memory = straggler_watch_.Remember();
  memory.generation = job_.generation();
  for (const StragglerFinding& finding : memory.findings) {
    memory.found_millis.push_back(straggler_millis_[KeyOf(finding)]);
  }
  return memory;
}

void JobActor::RestoreStragglers(const std::string& text) {
  stored_stragglers_ = text;
  if (text.empty() || !WatchesStragglers()) return;
  const auto memory =
      ReadStragglerMemory(text, plan_.num_stages(), plan_.num_replicas());
  if (!memory.ok()) {
    // They are found again.
    LOG_WARNING << job_.id() << ": " << memory.status().message();
    return;
  }
  if (memory->generation != job_.generation()) return;  // other workers
  straggler_watch_.Restore(*memory);
  for (size_t i = 0; i < memory->findings.size(); ++i) {
    straggler_millis_[KeyOf(memory->findings[i])] = memory->found_millis[i];
  }
  PublishStragglers();
}

std::string JobActor::StragglerText(const StragglerChange& change) const {
  const int num_replicas = job_.spec().parallel().replicas();
  const WorkerScope& scope = change.finding.scope;
  std::string worker;
  if (scope.stage >= 0 && scope.replica >= 0) {
    const auto rank =
        static_cast<size_t>(scope.stage * num_replicas + scope.replica);
    const WorkerInfo& info = members_[rank].info;
    worker = absl::StrCat(info.id, " on ", info.host);
  }
  return StragglerChangeText(change, num_replicas, worker);
}

void JobActor::NoteRebalancing(const v1::Rebalancing& change) {
  RecordEvent(
      "rebalance",
      absl::StrCat("from step ", change.step() + 1, " on replicas have ",
                   absl::StrJoin(change.after(), ", "),
                   " micro-batches, before ",
                   absl::StrJoin(change.before(), ", "), ": ", change.why()));
}

void JobActor::PublishStragglers() {
  if (services_.metrics == nullptr) return;
  const int num_replicas = job_.spec().parallel().replicas();
  v1::StragglerAnalysis analysis;
  analysis.set_step(straggler_watch_.last_step());
  for (const StragglerFinding& finding : straggler_watch_.findings()) {
    if (analysis.stragglers_size() == kMaxToldStragglers) break;
    v1::Straggler* told = analysis.add_stragglers();
    told->set_stage(finding.scope.stage);
    told->set_replica(finding.scope.replica);
    if (finding.scope.stage >= 0 && finding.scope.replica >= 0) {
      told->set_worker_id(
          members_[static_cast<size_t>(finding.scope.stage * num_replicas +
                                       finding.scope.replica)]
              .info.id);
    }
    told->set_cause(std::string(StragglerCauseName(finding.cause)));
    told->set_slowdown(1 + finding.shift);
    told->set_seconds_lost_per_step(finding.seconds_lost_per_step);
    told->set_since_step(finding.since_step);
    told->set_since_time_millis(straggler_millis_[KeyOf(finding)]);
  }
  if (straggler_watch_.report().has_value()) {
    const WhatIfReport& report = *straggler_watch_.report();
    analysis.set_step_seconds(report.step_seconds);
    analysis.set_ideal_seconds(report.ideal_seconds);
    for (size_t rank = 0; rank < members_.size(); ++rank) {
      analysis.add_scores(report.Score(static_cast<int>(rank) / num_replicas,
                                       static_cast<int>(rank) % num_replicas));
    }
    analysis.set_best_fix_stage(report.best_fix.stage);
    analysis.set_best_fix_replica(report.best_fix.replica);
    analysis.set_best_fix_seconds(report.best_fix_seconds);
  } else {
    analysis.Clear();
  }
  services_.metrics->StragglersJudged(job_.id(), analysis);
}

}  // namespace deltapipe
