// The kernels of `rowwise4(search=minmax)`: payloads of codecs/rowwise4.h,
// equal to those of the host in every bit.
#ifndef DELTAPIPE_COMPRESSION_CUDA_ROW_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_ROW_KERNELS_H_

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/float_cast.h"
#include "base/host_device.h"
#include "compression/cuda/code_stream.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/kernels/directed_bfloat16.h"
#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/row_grid.h"

namespace deltapipe {
namespace cuda {

/// Scale, bias and codes of a row of `count` values.
DP_HOST_DEVICE inline int64_t RowBytes(int64_t count) {
  return 4 + (count + 1) / 2;
}

DP_HOST_DEVICE inline int64_t RowsPayloadBytes(int64_t row, int64_t count) {
  return count / row * RowBytes(row) +
         (count % row == 0 ? 0 : RowBytes(count % row));
}

/// As the codec decodes it: two forms, which differ where sums are rounded
/// twice.
DP_HOST_DEVICE inline float RowValue(RowGrid grid, uint32_t code) {
  const float scale = BFloat16ToFloat(grid.scale);
  const float bias = BFloat16ToFloat(grid.bias);
  const float factor = static_cast<float>(code);
  if (scale * 15 + std::fabs(bias) < FLT_MAX) return factor * scale + bias;
  const double level =
      static_cast<double>(bias) + static_cast<double>(factor) * scale;
  return static_cast<float>(level < -double{FLT_MAX}  ? -double{FLT_MAX}
                            : level > double{FLT_MAX} ? double{FLT_MAX}
                                                      : level);
}

/// Half warp `index` encodes row `index`.
struct RowEncode {
  int64_t row;
  EncodeMessage message;
  Turn turn;
  uint8_t* payload;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t index, HalfWarpMemory* memory) const {
    const int64_t begin = index * row;
    if (!turn.IsMine() || begin >= message.count) return;
    const int64_t end = SmallerOf(begin + row, message.count);
    uint8_t* const fields = payload + index * RowBytes(row);
    const ValueRange range = Range(begin, end);
    RowGrid grid;
    if (range.all_finite) {
      grid = GridOver(range.low, range.high);
    } else {
      grid.scale = kBFloat16NaN;
    }
    const float low = std::fabs(range.low), high = std::fabs(range.high);
    const EvenSteps steps = StepsOf(grid, low < high ? high : low);
    EachLane([&](int lane) {
      if (lane != 0) return;
      std::memcpy(fields, &grid.scale, 2);
      std::memcpy(fields + 2, &grid.bias, 2);
      if (index > 0 || outcome == nullptr) return;
      outcome->payload_bytes = RowsPayloadBytes(row, message.count);
      outcome->is_delta = message.prediction == Prediction::kRecord;
    });
    for (int64_t at = begin; at < end; at += 64) {
      EachLane([&](int lane) {
        for (int j = 0; j < 4; ++j) {
          const int place = 16 * j + lane;
          const int64_t i = at + place;
          uint32_t code = 0;
          if (i < end) {
            const float input = message.Input(i);
            if (range.all_finite) code = Code(steps, input);
            if (message.KeepsState()) {
              message.Keep(i, input,
                           range.all_finite ? RowValue(grid, code)
                                            : BitsToFloat(0x7FC00000u));
            }
          }
          memory->SetCode(place, code);
        }
      });
      WriteCodes(4, *memory, 0, static_cast<int>(SmallerOf(end - at, 64)),
                 fields + 4 + (at - begin) / 2);
    }
  }

 private:
  DP_HOST_DEVICE ValueRange Range(int64_t begin, int64_t end) const {
    Lanes<float> high, negated_low;
    Lanes<bool> is_not_finite;
    EachLane([&](int lane) {
      is_not_finite[lane] = false;
      high[lane] = negated_low[lane] = -FLT_MAX;
      for (int64_t i = begin + lane; i < end; i += kLanes) {
        const float input = message.Input(i);
        if (MagnitudeBits(input) >= kInfinityBits) is_not_finite[lane] = true;
        if (high[lane] < input) high[lane] = input;
        if (negated_low[lane] < -input) negated_low[lane] = -input;
      }
    });
    ValueRange range;
    range.all_finite = Ballot(is_not_finite) == 0;
    // -0 to 0.
    range.low = -LargestOf(negated_low) + 0.0f;
    range.high = LargestOf(high) + 0.0f;
    return range;
  }

  DP_HOST_DEVICE static uint32_t Code(const EvenSteps& steps, float x) {
    const float position = (x * steps.shrink - steps.bias) * steps.inverse;
    const float above = position < 0.0f ? 0.0f : position;
    return static_cast<uint32_t>(std::nearbyint(above > 15.0f ? 15.0f : above));
  }
};

/// Half warp `index` decodes row `index`.
struct RowDecode {
  int64_t row;
  DecodeMessage message;
  const uint8_t* payload;
  uint32_t* problem;

  DP_HOST_DEVICE void operator()(int64_t index,
                                 HalfWarpMemory* /*memory*/) const {
    const int64_t begin = index * row;
    const int64_t end = SmallerOf(begin + row, message.count);
    const uint8_t* const fields = payload + index * RowBytes(row);
    const int64_t code_bytes = (end - begin + 1) / 2;
    RowGrid grid;
    std::memcpy(&grid.scale, fields, 2);
    std::memcpy(&grid.bias, fields + 2, 2);
    const bool is_nan = grid.scale == kBFloat16NaN;
    EachLane([&](int lane) {
      if (lane == 0) {
        if (!is_nan &&
            (grid.scale >= kBFloat16Infinity || !IsFiniteBFloat16(grid.bias))) {
          AtomicOr(problem, kImpossibleScale);
        }
        if (!UnusedBitsAreZero(fields + 4, 4 * (end - begin))) {
          AtomicOr(problem, kUnusedBitsAreSet);
        }
      }
      for (int64_t i = begin + lane; i < end; i += kLanes) {
        message.Put(i, is_nan
                           ? BitsToFloat(0x7FC00000u)
                           : RowValue(grid, ReadCode(4, fields + 4, code_bytes,
                                                     i - begin)));
      }
    });
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_ROW_KERNELS_H_
