#include "compression/codecs/row_bits.h"

#include <algorithm>
#include <array>
#include <vector>

#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

// One more bit for a row that has `bits`.
struct Step {
  double saving;
  uint32_t row;
  uint32_t bits;
};

// A total order, so that what is chosen is the same on any machine. Of one row
// the steps come in order: each saves less than the one before, or nothing.
bool IsBefore(const Step& a, const Step& b) {
  if (a.saving != b.saving) return a.saving > b.saving;
  return a.bits != b.bits ? a.bits < b.bits : a.row < b.row;
}

// By bits, what a row of cost 1 saves by one more.
std::array<double, kMaxRowBits> Savings() {
  std::array<double, kMaxRowBits> savings{};
  for (int bits = 1; bits < kMaxRowBits; ++bits) {
    const double levels = (1 << bits) - 1;
    const double more = (2 << bits) - 1;
    savings[bits] = 1 / (levels * levels) - 1 / (more * more);
  }
  return savings;
}

}  // namespace

void ChooseRowBits(absl::Span<const double> costs, int64_t total,
                   absl::Span<uint8_t> bits) {
  const std::array<double, kMaxRowBits> savings = Savings();
  ThreadScratch<Step> steps;
  for (size_t row = 0; row < costs.size(); ++row) {
    bits[row] = 1;
    for (int b = 1; b < kMaxRowBits; ++b) {
      steps->push_back({costs[row] * savings[b], static_cast<uint32_t>(row),
                        static_cast<uint32_t>(b)});
    }
  }
  const int64_t num_steps = total - static_cast<int64_t>(costs.size());
  if (num_steps < static_cast<int64_t>(steps->size())) {
    std::nth_element(steps->begin(), steps->begin() + num_steps, steps->end(),
                     IsBefore);
  }
  for (int64_t i = 0; i < num_steps; ++i) ++bits[(*steps)[i].row];
}

}  // namespace deltapipe
