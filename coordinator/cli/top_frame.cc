#include "coordinator/cli/top_frame.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/units.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/progress.h"
#include "coordinator/cli/saved_text.h"
#include "coordinator/cli/straggler_text.h"
#include "coordinator/cli/table.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

constexpr int kBarColumns = 24;
constexpr size_t kStragglers = 5;
constexpr int kEvents = 5;

std::string Percent(double ratio) {
  return absl::StrFormat("%.0f %%", 100 * ratio);
}

std::string JobLine(const v1::JobMetrics& metrics) {
  std::string line =
      absl::StrCat(metrics.id(), "  ", StateName(metrics.state()));
  if (!metrics.has_step()) return line + "  no step has been made yet\n";
  const v1::StepSummary& step = metrics.step();
  absl::StrAppend(&line, "  ", StepsDone(step), "/", step.total_steps(),
                  absl::StrFormat("  loss %.4f", step.loss()));
  if (step.tokens_per_second() > 0) {
    absl::StrAppend(&line, "  ",
                    FormatCount(std::llround(step.tokens_per_second())),
                    " tok/s");
  }
  if (metrics.eta_seconds() > 0) {
    absl::StrAppend(&line, "  ETA ", ClockText(metrics.eta_seconds()));
  }
  absl::StrAppend(&line, "  goodput ", Percent(metrics.goodput_ratio()));
  if (metrics.restarts() > 0) {
    absl::StrAppend(&line, "  ", Plural(metrics.restarts(), "restart"));
  }
  return line + "\n";
}

/// "######====....": computing, reducing, waiting.
std::string Bar(const v1::RankMetrics& rank) {
  const double step = rank.step_seconds();
  if (step <= 0) return std::string(kBarColumns, ' ');
  const auto cells = [&](double seconds) {
    return static_cast<int>(
        std::lround(kBarColumns * std::clamp(seconds / step, 0.0, 1.0)));
  };
  std::string bar(cells(rank.compute_seconds()), '#');
  bar += std::string(cells(rank.reduce_seconds()), '=');
  bar.resize(kBarColumns, '.');
  return bar;
}

std::string PipelineStrip(const v1::JobMetrics& metrics) {
  Table table({"STAGE", "REPLICA", "COMPUTE # REDUCE = WAIT .", "STEP", "IDLE",
               "PLANNED", "MEMORY", "WORKER"},
              {Align::kRight, Align::kRight, Align::kLeft, Align::kRight,
               Align::kRight, Align::kRight, Align::kRight});
  for (const v1::RankMetrics& rank : metrics.ranks()) {
    table.AddRow({absl::StrCat(rank.stage()), absl::StrCat(rank.replica()),
                  Bar(rank), absl::StrFormat("%.3f s", rank.step_seconds()),
                  Percent(rank.idle_ratio()),
                  Percent(rank.predicted_idle_ratio()),
                  FormatBytes(static_cast<double>(rank.memory_bytes())),
                  rank.worker_id()});
  }
  return table.ToString();
}

std::string Links(const v1::JobMetrics& metrics) {
  std::vector<const v1::LinkMetrics*> links;
  for (const v1::LinkMetrics& link : metrics.links()) links.push_back(&link);
  std::stable_sort(links.begin(), links.end(),
                   [](const v1::LinkMetrics* a, const v1::LinkMetrics* b) {
                     return a->busy_ratio() > b->busy_ratio();
                   });
  Table table({"LINK", "REPLICA", "BUSY", "RATE", "RATIO", "ERROR", "CODEC"},
              {Align::kLeft, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight, Align::kRight});
  for (const v1::LinkMetrics* link : links) {
    const int from = link->boundary() + (link->is_gradient() ? 1 : 0);
    const int to = link->boundary() + (link->is_gradient() ? 0 : 1);
    table.AddRow({absl::StrCat(from, " -> ", to), absl::StrCat(link->replica()),
                  Percent(link->busy_ratio()),
                  FormatBandwidth(8 * link->bytes_per_second()),
                  absl::StrFormat("%.1fx", link->compression_ratio()),
                  link->relative_error() > 0
                      ? absl::StrFormat("%.3f", link->relative_error())
                      : "-",
                  link->codec()});
  }
  return table.ToString();
}

std::string Stragglers(const v1::JobMetrics& metrics) {
  std::vector<const v1::RankMetrics*> ranks;
  for (const v1::RankMetrics& rank : metrics.ranks()) {
    if (rank.straggler_score() > 0) ranks.push_back(&rank);
  }
  std::stable_sort(ranks.begin(), ranks.end(),
                   [](const v1::RankMetrics* a, const v1::RankMetrics* b) {
                     return a->straggler_score() < b->straggler_score();
                   });
  if (ranks.size() > kStragglers) ranks.resize(kStragglers);
  Table table({"SLOWEST", "STAGE", "REPLICA", "PACE"},
              {Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  for (const v1::RankMetrics* rank : ranks) {
    table.AddRow({rank->worker_id(), absl::StrCat(rank->stage()),
                  absl::StrCat(rank->replica()),
                  Percent(rank->straggler_score())});
  }
  return table.ToString();
}

std::string Events(const v1::JobMetrics& metrics) {
  std::string text = "EVENTS\n";
  const int first = std::max(0, metrics.events_size() - kEvents);
  for (int i = first; i < metrics.events_size(); ++i) {
    const v1::JobEvent& event = metrics.events(i);
    absl::StrAppend(&text, TimeText(event.time_millis()), "  ", event.kind(),
                    "  ", event.text(), "\n");
  }
  return text;
}

/// At most `columns` characters, whole ones.
std::string Clipped(const std::string& line, int columns) {
  if (TextWidth(line) <= columns) return line;
  size_t end = 0;
  for (int width = 0; end < line.size(); ++end) {
    const bool begins = (line[end] & 0xc0) != 0x80;
    if (begins && width++ == columns) break;
  }
  return line.substr(0, end);
}

}  // namespace

std::string TopFrame(const v1::JobMetrics& metrics, const TopSize& size) {
  struct Section {
    std::string text;
    /// Those of the largest are left out first.
    int rank;
  };
  std::vector<Section> sections = {{JobLine(metrics), 0}};
  if (metrics.ranks_size() > 0) {
    sections.push_back({PipelineStrip(metrics) + SavedLine(metrics), 1});
  }
  if (metrics.links_size() > 0) sections.push_back({Links(metrics), 2});
  // What was found, and else who is slowest.
  const std::string summary = StragglerSummary(metrics);
  if (!summary.empty()) sections.push_back({summary, 2});
  if (metrics.ranks_size() > 1 && metrics.stragglers().stragglers().empty()) {
    sections.push_back({Stragglers(metrics), 4});
  }
  if (metrics.events_size() > 0) sections.push_back({Events(metrics), 3});
  const auto num_lines = [&] {
    size_t lines = sections.size() - 1;  // empty ones between
    for (const Section& section : sections) {
      lines += static_cast<size_t>(
          std::count(section.text.begin(), section.text.end(), '\n'));
    }
    return static_cast<int>(lines);
  };
  while (size.rows > 0 && sections.size() > 1 && num_lines() > size.rows) {
    sections.erase(std::max_element(
        sections.begin(), sections.end(),
        [](const Section& a, const Section& b) { return a.rank < b.rank; }));
  }
  std::string frame;
  for (const Section& section : sections) {
    if (!frame.empty()) frame += "\n";
    for (const absl::string_view line :
         absl::StrSplit(section.text, '\n', absl::SkipEmpty())) {
      absl::StrAppend(&frame, Clipped(std::string(line), size.columns), "\n");
    }
  }
  return frame;
}

}  // namespace deltapipe
