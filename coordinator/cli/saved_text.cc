#include "coordinator/cli/saved_text.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/units.h"
#include "coordinator/cli/table.h"

namespace deltapipe {
namespace {

double StoredBytes(const v1::SavedReport& saved) {
  return static_cast<double>(saved.packed_bytes() + saved.passed_bytes() +
                             saved.metadata_bytes());
}

std::string BytesText(int64_t bytes) {
  return FormatBytes(static_cast<double>(bytes));
}

std::string RatioText(double raw_bytes, double stored_bytes) {
  return raw_bytes > 0 ? absl::StrFormat("%.2g", stored_bytes / raw_bytes)
                       : "-";
}

/// What is no number is worse than any.
double WorstError(const v1::SavedReport& saved) {
  const double error = saved.errors(0).relative_error();
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

/// "0.034 addmm"; "-" before the first probe.
std::string ErrorText(const v1::SavedReport& saved) {
  if (saved.errors().empty()) return "-";
  // The largest is the first.
  const v1::SavedError& worst = saved.errors(0);
  return absl::StrFormat("%.2g %s", worst.relative_error(), worst.operator_());
}

/// The worker with the most bytes in host memory; null if none has any.
const v1::RankMetrics* MostOffloaded(const v1::JobMetrics& metrics) {
  const v1::RankMetrics* most = nullptr;
  int64_t bytes = 0;
  for (const v1::RankMetrics& rank : metrics.ranks()) {
    if (rank.saved().offloaded_peak_bytes() <= bytes) continue;
    bytes = rank.saved().offloaded_peak_bytes();
    most = &rank;
  }
  return most;
}

}  // namespace

std::string SavedText(double raw_bytes, double stored_bytes) {
  return absl::StrCat(FormatBytes(raw_bytes), " -> ", FormatBytes(stored_bytes),
                      " (", RatioText(raw_bytes, stored_bytes), ")");
}

std::string SavedLine(const v1::JobMetrics& metrics) {
  double raw = 0;
  double stored = 0;
  const v1::RankMetrics* highest = nullptr;
  const v1::RankMetrics* worst = nullptr;
  for (const v1::RankMetrics& rank : metrics.ranks()) {
    if (!rank.has_saved()) continue;
    const v1::SavedReport& saved = rank.saved();
    raw += static_cast<double>(saved.unique_bytes());
    stored += StoredBytes(saved);
    if (highest == nullptr ||
        saved.peak_bytes() > highest->saved().peak_bytes()) {
      highest = &rank;
    }
    if (saved.errors().empty()) continue;
    if (worst == nullptr || WorstError(saved) > WorstError(worst->saved())) {
      worst = &rank;
    }
  }
  if (highest == nullptr) return "";
  std::string text = absl::StrCat("saved ", SavedText(raw, stored), ", peak ",
                                  BytesText(highest->saved().peak_bytes()),
                                  " on stage ", highest->stage());
  const v1::RankMetrics* const most = MostOffloaded(metrics);
  if (most != nullptr) {
    absl::StrAppend(&text, " and ",
                    BytesText(most->saved().offloaded_peak_bytes()),
                    " in host memory on stage ", most->stage());
  }
  if (worst != nullptr) {
    absl::StrAppend(&text, ", gradient error ", ErrorText(worst->saved()),
                    " on stage ", worst->stage());
  }
  return text + "\n";
}

std::string SavedTable(const v1::JobMetrics& metrics) {
  std::vector<std::string> names = {"STAGE", "REPLICA", "SAVED",  "KEPT",
                                    "RATIO", "PEAK",    "SCRATCH"};
  std::vector<Align> aligns(names.size(), Align::kRight);
  // GPUs alone have it.
  const bool has_offloaded = MostOffloaded(metrics) != nullptr;
  if (has_offloaded) {
    names.push_back("IN HOST");
    aligns.push_back(Align::kRight);
  }
  names.push_back("GRADIENT ERROR");
  aligns.push_back(Align::kLeft);
  Table table(std::move(names), std::move(aligns));
  bool is_empty = true;
  for (const v1::RankMetrics& rank : metrics.ranks()) {
    if (!rank.has_saved()) continue;
    is_empty = false;
    const v1::SavedReport& saved = rank.saved();
    const auto raw = static_cast<double>(saved.unique_bytes());
    const double stored = StoredBytes(saved);
    std::vector<std::string> row = {absl::StrCat(rank.stage()),
                                    absl::StrCat(rank.replica()),
                                    FormatBytes(raw),
                                    FormatBytes(stored),
                                    RatioText(raw, stored),
                                    BytesText(saved.peak_bytes()),
                                    BytesText(saved.scratch_peak_bytes())};
    if (has_offloaded) row.push_back(BytesText(saved.offloaded_peak_bytes()));
    row.push_back(ErrorText(saved));
    table.AddRow(std::move(row));
  }
  return is_empty ? "" : table.ToString();
}

}  // namespace deltapipe
