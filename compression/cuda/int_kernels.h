// The kernels of `int` with symmetric levels and 8-bit scales: payloads of
// kernels/int_quantize.h, equal to those of the host in every bit, for every
// clip (sums run over the same 16 lanes in the same order).
#ifndef DELTAPIPE_COMPRESSION_CUDA_INT_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_INT_KERNELS_H_

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"
#include "compression/cuda/code_stream.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/cuda/random_words.h"
#include "compression/kernels/int_quantize.h"
#include "compression/kernels/int_scale.h"
#include "compression/kernels/largest_magnitude.h"

namespace deltapipe {
namespace cuda {

/// IntUnits without its tables.
class ComputedUnits {
 public:
  DP_HOST_DEVICE explicit ComputedUnits(int window) : window_(window) {}
  DP_HOST_DEVICE int window() const { return window_; }
  DP_HOST_DEVICE float unit(int magnitude) const {
    return IntUnit(window_, magnitude);
  }
  DP_HOST_DEVICE float inverse(int magnitude) const {
    return 1.0f / IntUnit(window_, magnitude);
  }

 private:
  int window_;
};

/// Keeps of ListIntScales' scales the codes, which say all: registers are few.
struct ScaleCodes {
  struct Place {
    uint8_t& code;
    DP_HOST_DEVICE void operator=(const IntScale& scale) { code = scale.code; }
  };
  uint8_t* codes;
  DP_HOST_DEVICE Place operator[](int i) const { return {codes[i]}; }
};

DP_HOST_DEVICE inline float NearestLevel(const IntScale& scale, float t) {
  t = t < scale.low ? scale.low : t;
  return std::nearbyint(t > scale.high ? scale.high : t);
}

DP_HOST_DEVICE inline float IntValue(const IntScale& scale, uint32_t code) {
  const float level =
      static_cast<float>(code) * scale.multiplier - scale.offset;
  const float value = level * scale.unit;
  return value < -FLT_MAX ? -FLT_MAX : value > FLT_MAX ? FLT_MAX : value;
}

/// A quiet NaN, as std::numeric_limits has it.
DP_HOST_DEVICE inline float QuietNaN() { return BitsToFloat(0x7FC00000u); }

/// Half warp `index` encodes block `index`. `window` is that of ChooseWindow.
struct IntEncode {
  IntFormat format;
  EncodeMessage message;
  Turn turn;
  RandomWords random;
  const uint32_t* window;
  uint8_t* payload;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t index, HalfWarpMemory* memory) const {
    if (!turn.IsMine()) return;
    const int64_t num_blocks = IntNumBlocks(format, message.count);
    if (index >= num_blocks) return;
    const int64_t begin = index * format.block;
    const int64_t end = SmallerOf(begin + format.block, message.count);
    const int chosen_window = static_cast<int>(*window);
    const ComputedUnits units(chosen_window);
    const uint32_t largest = Largest(begin, end);
    const bool has_codes = largest != 0 && largest < kInfinityBits;
    IntScale scale{};
    scale.code = largest == 0 ? kIntScaleZero : kIntScaleNonFinite;
    if (has_codes) scale = ChooseScale(units, largest, begin, end);
    EachLane([&](int lane) {
      if (lane != 0) return;
      payload[1 + index] = scale.code;
      if (index > 0) return;
      payload[0] = static_cast<uint8_t>(chosen_window);
      if (outcome != nullptr) {
        outcome->payload_bytes = IntPayloadBytes(format, message.count);
        outcome->is_delta = message.prediction == Prediction::kRecord;
      }
    });
    const float fill = largest == 0 ? 0.0f : QuietNaN();
    for (int64_t group = begin / 64; group * 64 < end; ++group) {
      const int64_t first = group * 64 < begin ? begin : group * 64;
      const int64_t last = SmallerOf(group * 64 + 64, end);
      EachLane([&](int lane) {
        FourWords words{};
        if (format.is_stochastic && has_codes) {
          words = random.Block(static_cast<uint32_t>(group) * 16 + lane);
        }
        for (int j = 0; j < 4; ++j) {
          const int place = 16 * j + lane;
          const int64_t i = group * 64 + place;
          if (i < first) continue;
          uint32_t code = 0;
          if (i < last) {
            const float input = message.Input(i);
            if (has_codes) code = Code(scale, input, words.word[j]);
            if (message.KeepsState()) {
              message.Keep(i, input, has_codes ? IntValue(scale, code) : fill);
            }
          }
          memory->SetCode(place, code);
        }
      });
      WriteCodes(format.bits, *memory, static_cast<int>(first - group * 64),
                 static_cast<int>(last - group * 64),
                 payload + 1 + num_blocks + first * format.bits / 8);
    }
  }

 private:
  DP_HOST_DEVICE uint32_t Largest(int64_t begin, int64_t end) const {
    Lanes<uint32_t> largest;
    EachLane([&](int lane) {
      largest[lane] = 0;
      for (int64_t i = begin + lane; i < end; i += kLanes) {
        largest[lane] =
            LargerOf(largest[lane], MagnitudeBits(message.Input(i)));
      }
    });
    return LargestOf(largest);
  }

  /// Sums term(value) over the block filled up with zeros, as the host does.
  template <class Term>
  DP_HOST_DEVICE float SumOverBlock(int64_t begin, const Term& term) const {
    Lanes<float> sums;
    EachLane([&](int lane) {
      sums[lane] = 0;
      for (int64_t i = lane; i < format.block; i += kLanes) {
        sums[lane] += term(message.Input(begin + i));
      }
    });
    return SumOf(sums);
  }

  DP_HOST_DEVICE float Spread(float block_max, int64_t begin,
                              int64_t end) const {
    const float weight = 1.0f / static_cast<float>(end - begin);
    if (format.model == IntClipModel::kGauss) {
      const float largest = block_max < FLT_MIN ? FLT_MIN : block_max;
      const float inverse = 1.0f / largest;
      return largest * std::sqrt(SumOverBlock(begin, [=](float value) {
               const float part = value * inverse;
               return part * part * weight;
             }));
    }
    if (format.bits > 1 && format.model != IntClipModel::kLaplace) return 0;
    return SumOverBlock(begin,
                        [=](float value) { return std::fabs(value) * weight; });
  }

  DP_HOST_DEVICE IntScale ChooseScale(const ComputedUnits& units,
                                      uint32_t largest, int64_t begin,
                                      int64_t end) const {
    const float block_max = BitsToFloat(largest);
    if (!format.searches_clip) {
      return IntCoveringScale(format, units, block_max);
    }
    Lanes<bool> is_negative_max;
    EachLane([&](int lane) {
      is_negative_max[lane] = false;
      for (int64_t i = begin + lane; i < end; i += kLanes) {
        if (message.Input(i) == -block_max) is_negative_max[lane] = true;
      }
    });
    const bool positive_max = Ballot(is_negative_max) == 0;
    uint8_t codes[kIntMaxCandidates];
    const int num_scales =
        ListIntScales(format, units, block_max, positive_max,
                      Spread(block_max, begin, end), ScaleCodes{codes});
    const IntScale first = IntScaleOf(format, units, codes[0]);
    if (num_scales == 1) return first;
    int best = 0;
    float best_error = 0;
    for (int candidate = 0; candidate < num_scales; ++candidate) {
      const IntScale scale = IntScaleOf(format, units, codes[candidate]);
      const float error = IntWeightedError(
          first, scale, SumOverBlock(begin, [=](float value) {
            const float t = value * scale.inverse + scale.center;
            const float off = t - NearestLevel(scale, t);
            return off * off;
          }));
      if (candidate == 0 || error < best_error) {
        best = candidate;
        best_error = error;
      }
    }
    return IntScaleOf(format, units, codes[best]);
  }

  DP_HOST_DEVICE uint32_t Code(const IntScale& scale, float x,
                               uint32_t word) const {
    if (!format.is_stochastic) {
      return static_cast<uint32_t>(
          NearestLevel(scale, x * scale.inverse + scale.center));
    }
    const float half_range = static_cast<float>(1 << (format.bits - 1));
    const float y = x * scale.inverse - (half_range - scale.center);
    const float floor = std::floor(y);
    const float up = UniformOf(word) < y - floor ? 1.0f : 0.0f;
    const float level = floor + half_range + up;
    return static_cast<uint32_t>(level < scale.low    ? scale.low
                                 : level > scale.high ? scale.high
                                                      : level);
  }
};

/// Half warp `group` decodes 64 elements.
struct IntDecode {
  IntFormat format;
  DecodeMessage message;
  const uint8_t* payload;
  uint32_t* problem;  // bits of PayloadProblem are added

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    const int64_t num_blocks = IntNumBlocks(format, message.count);
    const uint8_t* const codes = payload + 1 + num_blocks;
    const int64_t code_bytes = IntCodeBytes(format, message.count);
    const bool is_window = payload[0] <= kIntMaxWindow;
    const ComputedUnits units(is_window ? payload[0] : kIntMaxWindow);
    EachLane([&](int lane) {
      if (group == 0 && lane == 0) {
        if (!is_window) AtomicOr(problem, kImpossibleWindow);
        if (!UnusedBitsAreZero(codes, message.count * format.bits)) {
          AtomicOr(problem, kUnusedBitsAreSet);
        }
      }
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i >= message.count) continue;
        const uint8_t scale_code = payload[1 + QuotientOf(i, format.block)];
        const int magnitude = scale_code & kIntScaleMagnitude;
        float value = magnitude == kIntScaleZero ? 0.0f : QuietNaN();
        if (magnitude != kIntScaleZero && magnitude != kIntScaleNonFinite) {
          value = IntValue(IntScaleOf(format, units, scale_code),
                           ReadCode(format.bits, codes, code_bytes, i));
        }
        message.Put(i, value);
      }
    });
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_INT_KERNELS_H_
