#include "compression/kernels/codebook_tiers.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "compression/kernels/even_levels.h"

namespace deltapipe {
namespace {

constexpr int kClusterSteps = 2;

bool IsFinite(absl::Span<const float> row) {
  return RangeOfValues(row).all_finite;
}

class TierFit {
 public:
  TierFit(absl::Span<const float> in, int64_t row) : in_(in), row_(row) {}

  CodebookTiers Fit(int64_t num_codebooks) {
    CodebookTiers tiers;
    tiers.codebooks.resize(num_codebooks);
    tiers.codebook_of_row = RowsByRange(num_codebooks);
    for (int64_t k = 0; k < num_codebooks; ++k) {
      const std::vector<float> values = SortedValuesOf(tiers, k);
      tiers.codebooks[k] = FitCodebook(values);
    }
    for (int step = 0; step < kClusterSteps && num_codebooks > 1; ++step) {
      for (int64_t r = 0; r < num_rows(); ++r) {
        tiers.codebook_of_row[r] = BestCodebook(tiers, r);
      }
      for (int64_t k = 0; k < num_codebooks; ++k) {
        const std::vector<float> values = SortedValuesOf(tiers, k);
        if (values.empty()) continue;
        tiers.codebooks[k] = RefineCodebook(values, tiers.codebooks[k]);
      }
    }
    return tiers;
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
  std::vector<uint8_t> RowsByRange(int64_t num_groups) const {
    std::vector<double> ranges(num_rows(), 0);
    for (int64_t r = 0; r < num_rows(); ++r) {
      if (!IsFinite(Row(r))) continue;
      const auto row = Row(r);
      const auto [low, high] = std::minmax_element(row.begin(), row.end());
      ranges[r] = static_cast<double>(*high) - *low;
    }
    std::vector<int64_t> order(num_rows());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return ranges[a] < ranges[b];
    });
    std::vector<uint8_t> groups(num_rows());
    for (int64_t i = 0; i < num_rows(); ++i) {
      groups[order[i]] = static_cast<uint8_t>(i * num_groups / num_rows());
    }
    return groups;
  }

  std::vector<float> SortedValuesOf(const CodebookTiers& tiers,
                                    int64_t k) const {
    std::vector<float> values;
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
    return values;
  }

  uint8_t BestCodebook(const CodebookTiers& tiers, int64_t r) const {
    std::vector<float> zeros;
    absl::Span<const float> row = Row(r);
    if (!IsFinite(row)) {
      zeros.assign(row.size(), 0);
      row = zeros;
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

CodebookTiers FitCodebookTiers(absl::Span<const float> values, int64_t row,
                               int64_t num_codebooks) {
  return TierFit(values, row).Fit(num_codebooks);
}

}  // namespace deltapipe
