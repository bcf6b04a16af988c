#include "coordinator/cli/straggler_text.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/units.h"
#include "coordinator/cli/table.h"

namespace deltapipe {
namespace {

std::string ScopeText(int stage, int replica) {
  if (stage < 0 && replica < 0) return "all";
  if (replica < 0) return absl::StrCat("stage ", stage);
  if (stage < 0) return absl::StrCat("replica ", replica);
  return absl::StrCat("stage ", stage, ", replica ", replica);
}

std::string FindingsTable(const v1::StragglerAnalysis& analysis) {
  Table table(
      {"STRAGGLER", "CAUSE", "SLOWDOWN", "LOST/STEP", "SINCE STEP", "WORKER"},
      {Align::kLeft, Align::kLeft, Align::kRight, Align::kRight, Align::kRight,
       Align::kLeft});
  for (const v1::Straggler& found : analysis.stragglers()) {
    table.AddRow({ScopeText(found.stage(), found.replica()), found.cause(),
                  absl::StrFormat("%.2f x", found.slowdown()),
                  absl::StrFormat("%.2g s", found.seconds_lost_per_step()),
                  absl::StrCat(found.since_step() + 1),
                  found.worker_id().empty() ? "-" : found.worker_id()});
  }
  return table.ToString();
}

std::string DroppingLine(const v1::JobMetrics& metrics) {
  const v1::StragglerReport& dropping = metrics.dropping();
  std::string line =
      absl::StrCat("left out: ", Plural(metrics.samples_dropped(), "sample"));
  if (dropping.tau_seconds() > 0) {
    absl::StrAppendFormat(
        &line,
        "; no micro-batch begins after %.3g s; %.1f %% of the work (predicted "
        "%.1f %%), %.3f x as fast (predicted %.3f)",
        dropping.tau_seconds(), 100 * dropping.realised_drop_share(),
        100 * dropping.predicted_drop_share(), dropping.realised_speedup(),
        dropping.predicted_speedup());
  }
  if (!dropping.state().empty()) absl::StrAppend(&line, "; ", dropping.state());
  line += "\n";
  if (dropping.counts_size() > 0) {
    absl::StrAppend(&line, "micro-batches by replica: ",
                    absl::StrJoin(dropping.counts(), ", "), "\n");
  }
  return line;
}

std::string HeatMap(const v1::JobMetrics& metrics) {
  const v1::StragglerAnalysis& analysis = metrics.stragglers();
  const int num_replicas = metrics.num_replicas();
  std::vector<std::string> header = {"STAGE"};
  std::vector<Align> aligns = {Align::kRight};
  for (int replica = 0; replica < num_replicas; ++replica) {
    header.push_back(absl::StrCat("REPLICA ", replica));
    aligns.push_back(Align::kRight);
  }
  Table table(header, aligns);
  for (int stage = 0; stage < metrics.num_stages(); ++stage) {
    std::vector<std::string> row = {absl::StrCat(stage)};
    for (int replica = 0; replica < num_replicas; ++replica) {
      const int rank = stage * num_replicas + replica;
      row.push_back(rank < analysis.scores_size()
                        ? absl::StrFormat("%.2f", analysis.scores(rank))
                        : "-");
    }
    table.AddRow(row);
  }
  return table.ToString();
}

}  // namespace

std::string StragglerSummary(const v1::JobMetrics& metrics) {
  std::string text;
  if (metrics.stragglers().stragglers_size() > 0) {
    text = FindingsTable(metrics.stragglers());
  }
  if (metrics.has_dropping() || metrics.samples_dropped() > 0) {
    absl::StrAppend(&text, DroppingLine(metrics));
  }
  return text;
}

std::string StragglerReport(const v1::JobMetrics& metrics) {
  const v1::StragglerAnalysis& analysis = metrics.stragglers();
  const double step = analysis.step_seconds();
  const double ideal = analysis.ideal_seconds();
  std::string text = absl::StrFormat(
      "%s, step %d: a step takes %.3g s, and %.3g s were all workers alike "
      "(%.2f x)\n\n",
      metrics.id(), analysis.step() + 1, step, ideal,
      ideal > 0 ? step / ideal : 1);
  const std::string summary = StragglerSummary(metrics);
  absl::StrAppend(
      &text, analysis.stragglers_size() == 0 ? "no straggler\n" : "", summary,
      "\nstep time over the ideal one, were all others "
      "alike (1.00 slows nothing down)\n",
      HeatMap(metrics), "\n");
  if (analysis.best_fix_seconds() > 0 && step > 0) {
    absl::StrAppendFormat(
        &text,
        "the best single fix: %s as fast as the others saves "
        "%.2g s a step (%.0f %%)\n",
        ScopeText(analysis.best_fix_stage(), analysis.best_fix_replica()),
        analysis.best_fix_seconds(), 100 * analysis.best_fix_seconds() / step);
  }
  return text;
}

}  // namespace deltapipe
