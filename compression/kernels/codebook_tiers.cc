#include "compression/kernels/codebook_tiers.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "compression/kernels/even_levels.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

constexpr int kClusterSteps = 2;

bool IsFinite(absl::Span<const float> row) {
  return RangeOfValues(row).all_finite;
}

class TierFit {
 public:
  TierFit(absl::Span<const float> in, int64_t row) : in_(in), row_(row) {}

  void Fit(int64_t num_codebooks, const CodebookTiers& tiers) {
    ThreadScratch<float> values;
    tiers.codebooks.resize(num_codebooks);
    GroupRowsByRange(num_codebooks, &tiers.codebook_of_row);
    for (int64_t k = 0; k < num_codebooks; ++k) {
      SortValuesOf(tiers, k, &*values);
      tiers.codebooks[k] = FitCodebook(*values);
    }
    for (int step = 0; step < kClusterSteps && num_codebooks > 1; ++step) {
      for (int64_t r = 0; r < num_rows(); ++r) {
        tiers.codebook_of_row[r] = BestCodebook(tiers, r);
      }
      for (int64_t k = 0; k < num_codebooks; ++k) {
        SortValuesOf(tiers, k, &*values);
        if (values->empty()) continue;
        tiers.codebooks[k] = RefineCodebook(*values, tiers.codebooks[k]);
      }
    }
  }

 private:
  int64_t num_rows() const {
    return (static_cast<int64_t>(in_.size()) + row_ - 1) / row_;
  }
  absl::Span<const float> Row(int64_t index) const {
    return in_.subspan(index * row_, row_);
  }

  // Groups of as many rows each, by range; a row that is not finite counts as
  // zeros.
  void GroupRowsByRange(int64_t num_groups,
                        std::vector<uint8_t>* groups) const {
    ThreadScratch<double> ranges_scratch;
    ThreadScratch<int64_t> order_scratch;
    std::vector<double>& ranges = *ranges_scratch;
    std::vector<int64_t>& order = *order_scratch;
    ranges.assign(num_rows(), 0);
    for (int64_t r = 0; r < num_rows(); ++r) {
      if (!IsFinite(Row(r))) continue;
      const auto row = Row(r);
      const auto [low, high] = std::minmax_element(row.begin(), row.end());
      ranges[r] = static_cast<double>(*high) - *low;
    }
    order.resize(num_rows());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return ranges[a] != ranges[b] ? ranges[a] < ranges[b] : a < b;
    });
    groups->resize(num_rows());
    for (int64_t i = 0; i < num_rows(); ++i) {
      (*groups)[order[i]] = static_cast<uint8_t>(i * num_groups / num_rows());
    }
  }

  void SortValuesOf(const CodebookTiers& tiers, int64_t k,
                    std::vector<float>* sorted) const {
    std::vector<float>& values = *sorted;
    values.clear();
    for (int64_t r = 0; r < num_rows(); ++r) {
      if (tiers.codebook_of_row[r] != k) continue;
      const auto row = Row(r);
      if (IsFinite(row)) {
        values.insert(values.end(), row.begin(), row.end());
      } else {
        values.insert(values.end(), row.size(), 0.0f);
      }
    }
    std::sort(values.begin(), values.end());
  }

  uint8_t BestCodebook(const CodebookTiers& tiers, int64_t r) const {
    ThreadScratch<float> zeros;
    absl::Span<const float> row = Row(r);
    if (!IsFinite(row)) {
      zeros->assign(row.size(), 0);
      row = *zeros;
    }
    size_t best = 0;
    double best_error = std::numeric_limits<double>::infinity();
    for (size_t k = 0; k < tiers.codebooks.size(); ++k) {
      const double error = LevelError(row, LevelsOf(tiers.codebooks[k]));
      if (error < best_error) {
        best_error = error;
        best = k;
      }
    }
    return static_cast<uint8_t>(best);
  }

  const absl::Span<const float> in_;
  const int64_t row_;
};

}  // namespace

void FitCodebookTiers(absl::Span<const float> values, int64_t row,
                      int64_t num_codebooks, const CodebookTiers& tiers) {
  TierFit(values, row).Fit(num_codebooks, tiers);
}

}  // namespace deltapipe
