#include "coordinator/cli/job_metrics_table.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/units.h"
#include "coordinator/cli/progress.h"
#include "coordinator/cli/saved_text.h"
#include "coordinator/cli/straggler_text.h"
#include "coordinator/cli/table.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

std::string SecondsText(double seconds) {
  return FormatDuration(std::chrono::nanoseconds(
      static_cast<int64_t>(std::max(0.0, seconds) * 1e9)));
}

std::string PercentText(double ratio) {
  return absl::StrFormat("%.0f %%", 100 * ratio);
}

/// A figure that is 0 where it is not known.
std::string KnownText(double value, int digits) {
  return value == 0 ? "-" : absl::StrFormat("%.*f", digits, value);
}

std::string JobLine(const v1::JobMetrics& metrics, int64_t now_millis) {
  std::vector<std::string> parts = {
      absl::StrCat(metrics.id(), ": ", StateName(metrics.state()))};
  const v1::StepSummary& step = metrics.step();
  if (metrics.has_step()) {
    parts.push_back(
        absl::StrCat("step ", StepsDone(step), " of ", step.total_steps()));
    if (step.loss() != 0) {
      parts.push_back(absl::StrFormat("loss %.4f", step.loss()));
    }
    parts.push_back(absl::StrFormat("%.0f tokens/s", step.tokens_per_second()));
  }
  if (metrics.eta_seconds() > 0) {
    parts.push_back(absl::StrCat("ETA ", ClockText(metrics.eta_seconds())));
  }
  if (metrics.goodput_ratio() > 0) {
    parts.push_back(
        absl::StrCat("goodput ", PercentText(metrics.goodput_ratio())));
  }
  parts.push_back(absl::StrCat("generation ", metrics.generation()));
  if (metrics.restarts() > 0) {
    parts.push_back(Plural(metrics.restarts(), "restart"));
  }
  if (metrics.has_checkpoint()) {
    const auto age =
        static_cast<double>(now_millis - metrics.checkpoint().time_millis());
    parts.push_back(absl::StrCat("checkpoint of step ",
                                 metrics.checkpoint().step(), ", ",
                                 ClockText(std::max(0.0, age / 1e3)), " old"));
  }
  return absl::StrCat(absl::StrJoin(parts, "; "), "\n");
}

std::string RanksTable(const v1::JobMetrics& metrics) {
  Table table({"STAGE", "REPLICA", "WORKER", "STEP", "TIME", "COMPUTE", "WAIT",
               "REDUCE", "IDLE", "PACE", "MEMORY"},
              {Align::kRight, Align::kRight, Align::kLeft, Align::kRight,
               Align::kRight, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight, Align::kRight, Align::kRight});
  for (const v1::RankMetrics& rank : metrics.ranks()) {
    if (rank.report_time_millis() == 0) continue;
    table.AddRow(
        {absl::StrCat(rank.stage()), absl::StrCat(rank.replica()),
         rank.worker_id().empty() ? "-" : rank.worker_id(),
         absl::StrCat(rank.step() + 1), SecondsText(rank.step_seconds()),
         SecondsText(rank.compute_seconds()), SecondsText(rank.wait_seconds()),
         SecondsText(rank.reduce_seconds()), PercentText(rank.idle_ratio()),
         KnownText(rank.straggler_score(), 2),
         FormatBytes(static_cast<double>(rank.memory_bytes()))});
  }
  return table.ToString();
}

std::string LinksTable(const v1::JobMetrics& metrics) {
  Table table({"BOUNDARY", "DIRECTION", "REPLICA", "CODEC", "RAW", "WIRE",
               "RATIO", "RATE", "BUSY", "ERROR"},
              {Align::kLeft, Align::kLeft, Align::kRight, Align::kLeft,
               Align::kRight, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight, Align::kRight});
  for (const v1::LinkMetrics& link : metrics.links()) {
    table.AddRow({absl::StrCat(link.boundary(), "-", link.boundary() + 1),
                  link.is_gradient() ? "backward" : "forward",
                  absl::StrCat(link.replica()), link.codec(),
                  FormatBytes(static_cast<double>(link.raw_bytes())),
                  FormatBytes(static_cast<double>(link.wire_bytes())),
                  KnownText(link.compression_ratio(), 1),
                  absl::StrCat(FormatBytes(link.bytes_per_second()), "/s"),
                  PercentText(link.busy_ratio()),
                  KnownText(link.relative_error(), 4)});
  }
  return table.ToString();
}

}  // namespace

std::string JobMetricsTables(const v1::JobMetrics& metrics,
                             int64_t now_millis) {
  std::string text = JobLine(metrics, now_millis);
  absl::StrAppend(&text, "\n", RanksTable(metrics));
  if (metrics.links_size() > 0) {
    absl::StrAppend(&text, "\n", LinksTable(metrics));
  }
  const std::string saved = SavedTable(metrics);
  if (!saved.empty()) absl::StrAppend(&text, "\n", saved);
  const std::string stragglers = StragglerSummary(metrics);
  if (!stragglers.empty()) absl::StrAppend(&text, "\n", stragglers);
  return text;
}

}  // namespace deltapipe
