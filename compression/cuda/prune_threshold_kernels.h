// The threshold of `prune`, by codecs/prune_threshold.h: counts, log moments
// and histograms are integers, so that their order does not matter, and the
// rest is the host's arithmetic in one half warp.
//
// Equal to the host's in every bit with model=lognormal and model=exact, but
// for a fit whose share is within 1e-12 of the tolerance; model=normal is made
// from a sum in another order, and differs by some of its last bits.
#ifndef DELTAPIPE_COMPRESSION_CUDA_PRUNE_THRESHOLD_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_PRUNE_THRESHOLD_KERNELS_H_

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"
#include "compression/codecs/prune_threshold.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/log_moments.h"

namespace deltapipe {
namespace cuda {

constexpr int kPruneOctaves = 255;
constexpr int kPruneSteps = 2048;
/// The values that one half warp takes.
constexpr int64_t kPruneRun = 1024;

/// Of one message; zeros before it.
struct PruneState {
  uint64_t num_zeros;
  uint64_t num_prunable;
  uint64_t log_sum;  // of LogMoments, as two's complement
  uint64_t log_squares;
  double zeros;  // wanted among the prunable
  float threshold;
  uint32_t needs_check;
  uint32_t needs_exact;
  uint32_t first_step;
  uint64_t count_below;  // of the chosen octave
  double sum_below;
  int64_t num_kept;
  int64_t num_large;
  int64_t values_begin;  // in the payload
  uint32_t is_bad;       // a payload that cannot be one
  uint32_t unused;
  // Values by the upper bits of their magnitudes: how many, and the sum of
  // their mantissas.
  uint64_t octave_counts[kPruneOctaves + 1];
  uint64_t octave_mantissas[kPruneOctaves + 1];
  uint64_t step_counts[kPruneSteps];
  uint64_t step_mantissas[kPruneSteps];
};

/// fp32 numbers of this exponent field are their mantissas times this.
DP_HOST_DEVICE inline double MantissaUnit(uint32_t field) {
  return std::ldexp(1.0, static_cast<int>(field == 0 ? 1 : field) - 150);
}
DP_HOST_DEVICE inline uint32_t MantissaOf(uint32_t magnitude_bits) {
  return (magnitude_bits & 0x7FFFFFu) |
         (magnitude_bits < 0x800000u ? 0u : 0x800000u);
}
DP_HOST_DEVICE inline bool CanBePruned(uint32_t magnitude_bits) {
  return magnitude_bits != 0 && magnitude_bits < kInfinityBits;
}

/// Counts, log moments and, to `pairs`, the sum of finite magnitudes.
struct PruneCensus {
  EncodeMessage message;
  PruneState* state;
  double* pairs;

  DP_HOST_DEVICE void operator()(int64_t run,
                                 HalfWarpMemory* /*memory*/) const {
    Lanes<uint64_t> zeros, prunable, logs, squares;
    Lanes<double> magnitudes;
    EachLane([&](int lane) {
      zeros[lane] = prunable[lane] = logs[lane] = squares[lane] = 0;
      magnitudes[lane] = 0;
      const int64_t end = SmallerOf((run + 1) * kPruneRun, message.count);
      for (int64_t i = run * kPruneRun + lane; i < end; i += kLanes) {
        const uint32_t bits = MagnitudeBits(message.Input(i));
        zeros[lane] += bits == 0;
        if (!CanBePruned(bits)) continue;
        const float magnitude = BitsToFloat(bits);
        const int64_t units = Log2Units(magnitude);
        ++prunable[lane];
        logs[lane] += static_cast<uint64_t>(units);
        squares[lane] += static_cast<uint64_t>(units * units);
        magnitudes[lane] += magnitude;
      }
    });
    const uint64_t sums[4] = {SumOf(zeros), SumOf(prunable), SumOf(logs),
                              SumOf(squares)};
    const double magnitude_sum = SumOf(magnitudes);
    EachLane([&](int lane) {
      if (lane != 0) return;
      AtomicAdd(&state->num_zeros, sums[0]);
      AtomicAdd(&state->num_prunable, sums[1]);
      AtomicAdd(&state->log_sum, sums[2]);
      AtomicAdd(&state->log_squares, sums[3]);
      pairs[2 * run] = magnitude_sum;
      pairs[2 * run + 1] = 0;
    });
  }
};

/// The threshold, or what is to be done for it. `pair` is the sum of pairs.
struct PruneFit {
  PruneModel model;
  double sparsity;
  int64_t count;
  const double* pair;
  PruneState* state;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    EachLane([&](int lane) {
      if (lane == 0) Fit();
    });
  }

 private:
  DP_HOST_DEVICE void Fit() const {
    const double zeros = sparsity * static_cast<double>(count) -
                         static_cast<double>(state->num_zeros);
    const double prunable = static_cast<double>(state->num_prunable);
    state->zeros = zeros;
    if (zeros <= 0 || zeros >= prunable) {
      state->threshold = zeros <= 0 ? 0.0f : FLT_MAX;
      return;
    }
    if (model == PruneModel::kExact) {
      state->needs_exact = 1;
      return;
    }
    state->needs_check = 1;
    const double share = zeros / prunable;
    if (model == PruneModel::kNormal) {
      const double sigma = 1.2533141373155003 * pair[0] / prunable;
      state->threshold = ToThreshold(NormalPruneThreshold(share) * sigma);
      return;
    }
    LogMoments moments;
    moments.count = static_cast<int64_t>(state->num_prunable);
    moments.sum = static_cast<int64_t>(state->log_sum);
    moments.sum_squares = static_cast<int64_t>(state->log_squares);
    const double sigma =
        kLn2 * std::sqrt(moments.SquaredDeviations() / prunable);
    state->threshold = ToThreshold(PortableExp(
        kLn2 * moments.Mean() + LognormalPruneThreshold(share, sigma)));
  }
};

/// To `pairs` the sum and the number of what is below the fitted threshold.
struct PruneCheck {
  EncodeMessage message;
  const PruneState* state;
  double* pairs;

  DP_HOST_DEVICE void operator()(int64_t run,
                                 HalfWarpMemory* /*memory*/) const {
    const float limit = state->threshold;
    Lanes<double> sums, counts;
    EachLane([&](int lane) {
      sums[lane] = counts[lane] = 0;
      if (state->needs_check == 0) return;
      const int64_t end = SmallerOf((run + 1) * kPruneRun, message.count);
      for (int64_t i = run * kPruneRun + lane; i < end; i += kLanes) {
        const float magnitude = std::fabs(message.Input(i));
        if (!(magnitude < limit)) continue;
        sums[lane] += magnitude;
        counts[lane] += 1;
      }
    });
    const double sum = SumOf(sums);
    const double count = SumOf(counts);
    EachLane([&](int lane) {
      if (lane == 0) pairs[2 * run] = sum;
      if (lane == 1) pairs[2 * run + 1] = count;
    });
  }
};

/// Whether the fit's share of zeros is near enough. `pair` is the sum of pairs.
struct PruneDecide {
  double sparsity;
  int64_t count;
  const double* pair;
  PruneState* state;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    EachLane([&](int lane) {
      if (lane != 0 || state->needs_check == 0) return;
      const double threshold = state->threshold;
      const double zeros = threshold > 0
                               ? pair[1] - pair[0] / threshold
                               : static_cast<double>(state->num_zeros);
      const double reached = zeros / static_cast<double>(count);
      if (!(std::fabs(reached - sparsity) <= PruneTolerance(sparsity))) {
        state->needs_exact = 1;
      }
    });
  }
};

/// Counts values by octaves, or by the 2,048 steps of the chosen one.
struct PruneHistogram {
  EncodeMessage message;
  bool is_of_steps;
  PruneState* state;

  DP_HOST_DEVICE void operator()(int64_t run,
                                 HalfWarpMemory* /*memory*/) const {
    if (state->needs_exact == 0) return;
    EachLane([&](int lane) {
      const int64_t end = SmallerOf((run + 1) * kPruneRun, message.count);
      for (int64_t i = run * kPruneRun + lane; i < end; i += kLanes) {
        const uint32_t bits = MagnitudeBits(message.Input(i));
        if (!CanBePruned(bits)) continue;
        const uint32_t step = (bits >> 12) - state->first_step;
        if (is_of_steps && step >= kPruneSteps) continue;
        AtomicAdd(is_of_steps ? &state->step_counts[step]
                              : &state->octave_counts[bits >> 23],
                  uint64_t{1});
        AtomicAdd(is_of_steps ? &state->step_mantissas[step]
                              : &state->octave_mantissas[bits >> 23],
                  uint64_t{MantissaOf(bits)});
      }
    });
  }
};

/// The octave that the exact threshold lies in, or the threshold within it.
struct PruneChoose {
  bool is_of_steps;
  PruneState* state;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    if (state->needs_exact == 0) return;
    is_of_steps ? ChooseStep() : ChooseOctave();
  }

 private:
  struct Bucket {
    int at;  // the first bucket beyond where there is none
    uint64_t count;
    double sum;
    uint64_t count_below;
    double sum_below;
  };

  DP_HOST_DEVICE static double Edge(uint32_t bits) {
    return bits >= kInfinityBits ? 0x1p128 : double{BitsToFloat(bits)};
  }

  /// Histogram::Advance of prune_threshold.cc, 16 buckets at a time.
  DP_HOST_DEVICE Bucket Advance(const uint64_t* counts,
                                const uint64_t* mantissas, int num_buckets,
                                uint32_t first, int shift) const {
    Bucket bucket{0, 0, 0, is_of_steps ? state->count_below : 0,
                  is_of_steps ? state->sum_below : 0};
    for (int base = 0; base < num_buckets; base += kLanes) {
      Lanes<uint64_t> of_counts, of_mantissas;
      EachLane([&](int lane) {
        const bool is_one = base + lane < num_buckets;
        of_counts[lane] = is_one ? counts[base + lane] : 0;
        of_mantissas[lane] = is_one ? mantissas[base + lane] : 0;
      });
      for (int lane = 0; lane < kLanes; ++lane) {
        if (base + lane >= num_buckets) break;
        const uint32_t begin = (first + static_cast<uint32_t>(base + lane))
                               << shift;
        bucket.at = base + lane;
        bucket.count = ValueOf(of_counts, lane);
        bucket.sum = static_cast<double>(ValueOf(of_mantissas, lane)) *
                     MantissaUnit(begin >> 23);
        const double next_count =
            static_cast<double>(bucket.count_below + bucket.count);
        if (next_count -
                (bucket.sum_below + bucket.sum) / Edge(begin + (1u << shift)) >=
            state->zeros) {
          return bucket;
        }
        bucket.count_below += bucket.count;
        bucket.sum_below += bucket.sum;
      }
    }
    bucket.at = num_buckets;
    return bucket;
  }

  DP_HOST_DEVICE void ChooseOctave() const {
    const Bucket octave = Advance(state->octave_counts, state->octave_mantissas,
                                  kPruneOctaves, 0, 23);
    EachLane([&](int lane) {
      if (lane != 0) return;
      if (octave.at == kPruneOctaves) {
        state->threshold = FLT_MAX;
        state->needs_exact = 0;
        return;
      }
      state->first_step = static_cast<uint32_t>(octave.at) * kPruneSteps;
      state->count_below = octave.count_below;
      state->sum_below = octave.sum_below;
    });
  }

  DP_HOST_DEVICE void ChooseStep() const {
    Bucket step = Advance(state->step_counts, state->step_mantissas,
                          kPruneSteps, state->first_step, 12);
    uint64_t count = step.count_below;
    double sum = step.sum_below;
    if (step.at < kPruneSteps) {
      count += step.count;
      sum += step.sum;
    } else {
      step.at = kPruneSteps - 1;
    }
    const uint32_t begin = (state->first_step + static_cast<uint32_t>(step.at))
                           << 12;
    const uint32_t end = begin + (1u << 12);
    const double low = BitsToFloat(begin);
    const double high = end >= kInfinityBits ? double{FLT_MAX} : Edge(end);
    const double left = static_cast<double>(count) - state->zeros;
    double threshold = high;
    if (left > 0) {
      threshold = sum / left;
      threshold = threshold < low ? low : threshold > high ? high : threshold;
    }
    EachLane([&](int lane) {
      if (lane == 0) state->threshold = ToThreshold(threshold);
    });
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_PRUNE_THRESHOLD_KERNELS_H_
