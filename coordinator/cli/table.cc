#include "coordinator/cli/table.h"

#include <algorithm>
#include <utility>

namespace deltapipe {
namespace {

constexpr char kGap[] = "  ";

}  // namespace

int TextWidth(const std::string& text) {
  return static_cast<int>(std::count_if(
      text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

Table::Table(std::vector<std::string> headers, std::vector<Align> alignment)
    : headers_(std::move(headers)), alignment_(std::move(alignment)) {
  alignment_.resize(headers_.size(), Align::kLeft);
}

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(headers_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<int> widths;
  for (const std::string& header : headers_) {
    widths.push_back(TextWidth(header));
  }
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], TextWidth(row[i]));
    }
  }
  std::string text;
  const auto append_line = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t i = 0; i < cells.size(); ++i) {
      const std::string padding(
          static_cast<size_t>(widths[i] - TextWidth(cells[i])), ' ');
      if (i > 0) line += kGap;
      line += alignment_[i] == Align::kRight ? padding + cells[i]
                                             : cells[i] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  };
  const bool has_headers =
      std::any_of(headers_.begin(), headers_.end(),
                  [](const std::string& header) { return !header.empty(); });
  if (has_headers) append_line(headers_);
  for (const auto& row : rows_) append_line(row);
  return text;
}

}  // namespace deltapipe
