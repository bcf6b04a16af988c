#include "coordinator/background/straggler_watch.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "coordinator/stragglers/trace_timings.h"

namespace deltapipe {
namespace {

bool IsSame(const StragglerFinding& a, const StragglerFinding& b) {
  return a.scope == b.scope && a.cause == b.cause;
}

bool Contains(const std::vector<StragglerFinding>& findings,
              const StragglerFinding& wanted) {
  return std::any_of(findings.begin(), findings.end(),
                     [&wanted](const StragglerFinding& finding) {
                       return IsSame(finding, wanted);
                     });
}

std::string WhoText(const StragglerFinding& finding,
                    const std::string& worker) {
  std::string who = finding.scope.stage < 0
                        ? "all stages"
                        : absl::StrCat("stage ", finding.scope.stage);
  if (finding.scope.replica >= 0) {
    absl::StrAppend(&who, ", replica ", finding.scope.replica);
  }
  if (!worker.empty()) absl::StrAppend(&who, " (", worker, ")");
  return who;
}

std::string WhatText(const StragglerFinding& finding, int num_replicas) {
  const char* const others =
      num_replicas > 1 ? "its peers" : "in its first steps";
  const double times = 1 + finding.shift;
  switch (finding.cause) {
    case StragglerCause::kCompute:
      return absl::StrFormat("computes %.2f x as long as %s", times, others);
    case StragglerCause::kActivationLink:
      return absl::StrFormat("sends activations %.2f x as long as %s", times,
                             others);
    case StragglerCause::kGradientLink:
      return absl::StrFormat("sends gradients %.2f x as long as %s", times,
                             others);
    case StragglerCause::kInput:
      return absl::StrFormat("waits for input for %.0f %% of its compute",
                             100 * finding.shift);
    case StragglerCause::kStageImbalance:
      return absl::StrFormat("computes %.2f x as long as the other stages",
                             times);
    case StragglerCause::kSequenceLength:
      return absl::StrFormat("have micro-batches that differ by %.0f %%",
                             100 * finding.shift);
  }
  return "";
}

}  // namespace

std::string StragglerChangeText(const StragglerChange& change, int num_replicas,
                                const std::string& worker) {
  const StragglerFinding& finding = change.finding;
  if (change.is_cleared) {
    return absl::StrCat(WhoText(finding, worker),
                        " slows the job down no longer; cause was: ",
                        StragglerCauseName(finding.cause));
  }
  return absl::StrFormat(
      "%s %s: %.2g s a step lost; cause: %s", WhoText(finding, worker),
      WhatText(finding, num_replicas), finding.seconds_lost_per_step,
      StragglerCauseName(finding.cause));
}

absl::Status StragglerWatch::Begin(const v1::Plan& plan) {
  detector_.reset();
  workers_.clear();
  report_.reset();
  last_step_ = -1;
  traced_steps_ = kMinTracedSteps;
  DP_ASSIGN_OR_RETURN(schedule_, ParseSchedule(plan.schedule()));
  num_stages_ = plan.num_stages();
  num_replicas_ = plan.num_replicas();
  workers_.resize(static_cast<size_t>(num_stages_) *
                  static_cast<size_t>(num_replicas_));
  detector_.emplace(schedule_);
  return absl::OkStatus();
}

void StragglerWatch::AddReport(int rank, const v1::StepReport& report) {
  if (static_cast<size_t>(rank) >= workers_.size() || report.steps() < 1) {
    return;
  }
  Worker& worker = workers_[static_cast<size_t>(rank)];
  // A boundary is named once for each codec that it has had.
  double activation_seconds = 0;
  double gradient_seconds = 0;
  for (const v1::LinkReport& link : report.links()) {
    (link.is_gradient() ? gradient_seconds : activation_seconds) +=
        link.send_seconds();
  }
  const auto advance = [&](double seconds, bool exists, Link* link) {
    // The first report may stand for steps that nobody saw.
    if (exists && worker.has_reported) {
      link->seconds_per_step = std::max(0.0, seconds - link->send_seconds) /
                               static_cast<double>(report.steps());
    }
    link->send_seconds = seconds;
  };
  const int stage = rank / num_replicas_;
  advance(activation_seconds, stage + 1 < num_stages_, &worker.activation);
  advance(gradient_seconds, stage > 0, &worker.gradient);
  worker.has_reported = true;
}

int StragglerWatch::BeginSample() {
  for (Worker& worker : workers_) worker.traces.clear();
  return traced_steps_;
}

void StragglerWatch::AddTrace(int rank, const v1::StepTrace& trace) {
  if (static_cast<size_t>(rank) >= workers_.size()) return;
  workers_[static_cast<size_t>(rank)].traces[trace.step()] = trace;
}

absl::StatusOr<StepTimings> StragglerWatch::TakeTimings() {
  int64_t first = -1;
  for (const Worker& worker : workers_) {
    if (worker.traces.empty()) {
      return absl::FailedPreconditionError("a worker sent no trace");
    }
    first = std::max(first, worker.traces.begin()->first);
  }
  std::vector<WorkerSample> samples;
  for (Worker& worker : workers_) {
    const auto found = worker.traces.find(first);
    if (found == worker.traces.end()) {
      traced_steps_ = std::min(2 * traced_steps_, kMaxTracedSteps);
      return absl::FailedPreconditionError(
          absl::StrCat("not all workers have traced step ", first + 1));
    }
    WorkerSample sample;
    sample.trace = std::move(found->second);
    sample.activation_send_seconds = worker.activation.seconds_per_step;
    sample.gradient_send_seconds = worker.gradient.seconds_per_step;
    samples.push_back(std::move(sample));
  }
  return TimingsOfTraces(num_stages_, num_replicas_, samples);
}

absl::StatusOr<std::vector<StragglerChange>> StragglerWatch::EndSample() {
  std::vector<StragglerChange> changes;
  if (!detector_.has_value()) return changes;
  absl::StatusOr<StepTimings> timings = TakeTimings();
  for (Worker& worker : workers_) worker.traces.clear();
  DP_RETURN_IF_ERROR(timings.status());
  const std::vector<StragglerFinding> before = detector_->findings();
  const int64_t step = timings->step;
  DP_RETURN_IF_ERROR(detector_->Add(*std::move(timings)));
  last_step_ = step;
  const auto& samples = detector_->samples();
  const size_t num_replayed = std::min(samples.size(), kReplayedSamples);
  DP_ASSIGN_OR_RETURN(
      const WhatIf what_if,
      WhatIf::Create(schedule_,
                     {samples.end() - static_cast<ptrdiff_t>(num_replayed),
                      samples.end()}));
  report_ = what_if.Report();
  for (const StragglerFinding& finding : detector_->findings()) {
    if (!Contains(before, finding)) changes.push_back({finding, false});
  }
  for (const StragglerFinding& finding : before) {
    if (!Contains(detector_->findings(), finding)) {
      changes.push_back({finding, true});
    }
  }
  return changes;
}

StragglerMemory StragglerWatch::Remember() const {
  StragglerMemory memory;
  if (!detector_.has_value()) return memory;
  memory.last_step = last_step_;
  memory.findings = detector_->findings();
  memory.baselines = detector_->baselines();
  memory.report = report_;
  return memory;
}

void StragglerWatch::Restore(const StragglerMemory& memory) {
  if (!detector_.has_value()) return;
  detector_->Restore(memory.findings, memory.baselines);
  last_step_ = memory.last_step;
  report_ = memory.report;
}

std::vector<StragglerFinding> StragglerWatch::findings() const {
  if (!detector_.has_value()) return {};
  return detector_->findings();
}

}  // namespace deltapipe
