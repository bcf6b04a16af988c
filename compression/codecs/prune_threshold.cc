#include "compression/codecs/prune_threshold.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/float_cast.h"
#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/log_moments.h"
#include "compression/kernels/portable_math.h"

namespace deltapipe {
namespace {

uint32_t MagnitudeBits(float value) { return FloatBits(value) & 0x7FFFFFFFu; }

bool CanBePruned(uint32_t magnitude_bits) {
  return magnitude_bits != 0 && magnitude_bits < kInfinityBits;
}

// How many values are below a limit, and the sum of their magnitudes. NaN and
// infinities are below none.
struct Below {
  int64_t count = 0;
  double sum = 0;

  // The expected number of zeros for `threshold` > 0, the limit.
  double Zeros(double threshold) const {
    return static_cast<double>(count) - sum / threshold;
  }
};

// Sums run over eight lanes, element i in lane i % 8, so that compilers may use
// vectors.
Below CountBelow(float limit, absl::Span<const float> values) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  std::array<int64_t, kLanes> counts{};
  const auto add = [&](size_t lane, float value) {
    const float magnitude = std::fabs(value);
    const bool is_below = magnitude < limit;
    sums[lane] += is_below ? magnitude : 0.0f;
    counts[lane] += is_below;
  };
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(lane, values[i + lane]);
  }
  for (size_t lane = 0; i + lane < values.size(); ++lane) {
    add(lane, values[i + lane]);
  }
  Below below;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    below.sum += sums[lane];
    below.count += counts[lane];
  }
  return below;
}

int64_t CountZeros(absl::Span<const float> values) {
  return std::count(values.begin(), values.end(), 0.0f);
}

// Values by the upper bits of their magnitudes, so that buckets are in order of
// size: `shift` bits are below the bucket's number, which counts from `first`.
template <size_t kBuckets>
struct Histogram {
  std::array<int64_t, kBuckets> counts{};
  std::array<double, kBuckets> sums{};

  void Fill(absl::Span<const float> values, uint32_t first, int shift) {
    for (const float value : values) {
      const uint32_t bits = MagnitudeBits(value);
      const uint32_t bucket = (bits >> shift) - first;
      if (!CanBePruned(bits) || bucket >= kBuckets) continue;
      ++counts[bucket];
      sums[bucket] += BitsToFloat(bits);
    }
  }

  // Advances `count` and `sum`, those of all values below the first bucket, to
  // the bucket within which the threshold for `zeros` expected zeros lies, and
  // returns it; kBuckets if it is above all.
  size_t Advance(double zeros, uint32_t first, int shift, int64_t* count,
                 double* sum) const {
    for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
      const uint32_t edge_bits = (first + static_cast<uint32_t>(bucket) + 1)
                                 << shift;
      const double edge =
          edge_bits >= kInfinityBits ? 0x1p128 : BitsToFloat(edge_bits);
      const double next_count = static_cast<double>(*count + counts[bucket]);
      if (next_count - (*sum + sums[bucket]) / edge >= zeros) return bucket;
      *count += counts[bucket];
      *sum += sums[bucket];
    }
    return kBuckets;
  }
};

// The threshold for `zeros` expected zeros among the values that can be pruned:
// first the octave that it lies in, then a 2,048th of it, within which the
// exact solution for all values below its end is right to 2^-11 relatively.
float ExactThreshold(double zeros, absl::Span<const float> values) {
  constexpr size_t kOctaves = 255;
  constexpr size_t kSteps = 2048;
  int64_t count = 0;
  double sum = 0;
  uint32_t first_step = 0;
  {
    Histogram<kOctaves> octaves;
    octaves.Fill(values, 0, 23);
    const size_t octave = octaves.Advance(zeros, 0, 23, &count, &sum);
    if (octave == kOctaves) return FLT_MAX;
    first_step = static_cast<uint32_t>(octave * kSteps);
  }
  Histogram<kSteps> steps;
  steps.Fill(values, first_step, 12);
  const size_t step = steps.Advance(zeros, first_step, 12, &count, &sum);
  // The octave's end satisfied the condition: so does that of its last step,
  // but for the order of sums.
  const size_t last = std::min(step, kSteps - 1);
  if (step < kSteps) {
    count += steps.counts[step];
    sum += steps.sums[step];
  }
  const uint32_t begin = (first_step + static_cast<uint32_t>(last)) << 12;
  const uint32_t end = begin + (1u << 12);
  const double low = BitsToFloat(begin);
  const double high = end >= kInfinityBits ? FLT_MAX : BitsToFloat(end);
  const double left = static_cast<double>(count) - zeros;
  return ToThreshold(left > 0 ? std::clamp(sum / left, low, high) : high);
}

}  // namespace

double ExpectedSparsity(absl::Span<const float> values, float threshold) {
  if (values.empty()) return 0;
  const double zeros = threshold > 0
                           ? CountBelow(threshold, values).Zeros(threshold)
                           : static_cast<double>(CountZeros(values));
  return zeros / static_cast<double>(values.size());
}

float PruneThreshold(PruneModel model, double sparsity,
                     absl::Span<const float> values) {
  const Below finite =
      CountBelow(std::numeric_limits<float>::infinity(), values);
  const int64_t num_zeros = CountZeros(values);
  const double zeros = sparsity * static_cast<double>(values.size()) -
                       static_cast<double>(num_zeros);
  if (zeros <= 0) return 0;
  const double prunable = static_cast<double>(finite.count - num_zeros);
  if (zeros >= prunable) return FLT_MAX;
  const double share = zeros / prunable;
  if (model == PruneModel::kExact) return ExactThreshold(zeros, values);

  float fitted = 0;
  if (model == PruneModel::kNormal) {
    // sigma from the mean magnitude, as Ye et al. have it.
    const double sigma = 1.2533141373155003 * finite.sum / prunable;
    fitted = ToThreshold(NormalPruneThreshold(share) * sigma);
  } else {
    const LogMoments moments = LogMomentsOf(values);
    const double sigma =
        kLn2 * std::sqrt(moments.SquaredDeviations() / prunable);
    fitted = ToThreshold(PortableExp(kLn2 * moments.Mean() +
                                     LognormalPruneThreshold(share, sigma)));
  }
  const double reached = ExpectedSparsity(values, fitted);
  return std::fabs(reached - sparsity) <= PruneTolerance(sparsity)
             ? fitted
             : ExactThreshold(zeros, values);
}

}  // namespace deltapipe
