// The kernels of `luq` and `fp`: payloads of kernels/minifloat_quantize.h,
// equal to those of the host in every bit.
#ifndef DELTAPIPE_COMPRESSION_CUDA_MINIFLOAT_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_MINIFLOAT_KERNELS_H_

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/host_device.h"
#include "compression/cuda/code_stream.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/cuda/random_words.h"
#include "compression/kernels/minifloat_quantize.h"

namespace deltapipe {
namespace cuda {

/// The values that one half warp takes where there are no blocks.
constexpr int64_t kMinifloatRun = 1024;

/// LargestMagnitudeBits of the inputs, by runs; `largest` is 0 before.
struct LargestInput {
  EncodeMessage message;
  Turn turn;
  uint32_t* largest;

  DP_HOST_DEVICE static uint32_t Of(const EncodeMessage& message, int64_t begin,
                                    int64_t end) {
    Lanes<uint32_t> lanes;
    EachLane([&](int lane) {
      lanes[lane] = 0;
      for (int64_t i = begin + lane; i < end; i += kLanes) {
        lanes[lane] = LargerOf(lanes[lane], MagnitudeBits(message.Input(i)));
      }
    });
    return LargestOf(lanes);
  }

  DP_HOST_DEVICE void operator()(int64_t run,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine()) return;
    const uint32_t bits =
        Of(message, run * kMinifloatRun,
           SmallerOf((run + 1) * kMinifloatRun, message.count));
    EachLane([&](int lane) {
      if (lane == 0) AtomicMax(largest, bits);
    });
  }
};

/// Half warp `index` encodes block `index`, or kMinifloatRun values where there
/// are no blocks, whose largest magnitude is then at `largest`.
struct MinifloatEncode {
  MinifloatFormat format;
  EncodeMessage message;
  Turn turn;
  RandomWords random;
  const uint32_t* largest;
  uint8_t* payload;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t index, HalfWarpMemory* memory) const {
    const int64_t size = format.block == 0 ? kMinifloatRun : format.block;
    const int64_t begin = index * size;
    if (!turn.IsMine() || begin >= message.count) return;
    const int64_t end = SmallerOf(begin + size, message.count);
    const uint32_t largest_bits =
        format.block == 0 ? *largest : LargestInput::Of(message, begin, end);
    const uint16_t scale = MinifloatScale(format, largest_bits);
    EachLane([&](int lane) {
      if (lane != 0) return;
      if (format.block != 0 || index == 0) {
        std::memcpy(payload + 2 * index, &scale, sizeof(scale));
      }
      if (index > 0 || outcome == nullptr) return;
      outcome->payload_bytes = MinifloatPayloadBytes(format, message.count);
      outcome->is_delta = message.prediction == Prediction::kRecord;
    });
    // A Philox block serves 128 elements, 8 of each lane.
    for (int64_t group = begin / 128; group * 128 < end; ++group) {
      EncodeGroup(group, begin, end, scale, memory);
    }
  }

  /// What the codes of one element mean, in units of the scale.
  DP_HOST_DEVICE static float Level(const MinifloatFormat& format,
                                    uint32_t code) {
    const uint32_t sign = code >> (format.bits() - 1);
    const uint32_t magnitude = code & ((1u << (format.bits() - 1)) - 1);
    const float z =
        BitsToFloat((magnitude + format.base()) << format.dropped_bits());
    const float half = 0.5f * z;
    const float normal = format.smallest_normal();
    const float y = z - (half < normal ? normal : half);
    return sign != 0 ? -y : y;
  }

  /// The value of the sum of all samples' levels.
  DP_HOST_DEVICE static float Value(const MinifloatFormat& format, float sum,
                                    uint16_t scale) {
    if (scale == kMinifloatScaleZero) return 0;
    if (scale == kMinifloatScaleNonFinite) return BitsToFloat(0x7FC00000u);
    const float mean = sum * (1.0f / static_cast<float>(format.num_samples));
    const float value = mean * BFloat16ToFloat(scale);
    return value < -FLT_MAX ? -FLT_MAX : value > FLT_MAX ? FLT_MAX : value;
  }

 private:
  struct EightFloats {
    float of[8];
  };

  DP_HOST_DEVICE void EncodeGroup(int64_t group, int64_t begin, int64_t end,
                                  uint16_t scale,
                                  HalfWarpMemory* memory) const {
    const bool has_codes =
        scale != kMinifloatScaleZero && scale != kMinifloatScaleNonFinite;
    const float inverse = has_codes ? 1.0f / BFloat16ToFloat(scale) : 0.0f;
    uint8_t* const codes =
        payload + 2 * MinifloatNumBlocks(format, message.count);
    Lanes<EightFloats> inputs, sums;
    EachLane([&](int lane) {
      for (int k = 0; k < 8; ++k) {
        const int64_t i = group * 128 + 16 * k + lane;
        inputs[lane].of[k] = i >= begin && i < end ? message.Input(i) : 0.0f;
        sums[lane].of[k] = 0;
      }
    });
    for (int sample = 0; sample < format.num_samples; ++sample) {
      Lanes<FourWords> words;
      EachLane([&](int lane) {
        words[lane] = {};
        if (format.is_stochastic && has_codes) {
          words[lane] = random.Block(static_cast<uint32_t>(group) * 16 + lane,
                                     2 * sample);
        }
      });
      uint8_t* const stream =
          codes + sample * MinifloatCodeBytes(format, message.count);
      for (int half = 0; half < 2; ++half) {
        const int64_t start = group * 128 + 64 * half;
        const int64_t first = start < begin ? begin : start;
        const int64_t last = SmallerOf(start + 64, end);
        if (first >= last) continue;
        EachLane([&](int lane) {
          for (int j = 0; j < 4; ++j) {
            const int place = 16 * j + lane;
            const int64_t i = start + place;
            uint32_t code = 0;
            if (has_codes && i >= first && i < last) {
              const int k = 4 * half + j;
              code =
                  Code(inverse, inputs[lane].of[k],
                       words[lane].word[j] >> (16 * half) & 0xFFFFu, sample, i);
              sums[lane].of[k] += Level(format, code);
            }
            memory->SetCode(place, code);
          }
        });
        WriteCodes(format.bits(), *memory, static_cast<int>(first - start),
                   static_cast<int>(last - start),
                   stream + first * format.bits() / 8);
      }
    }
    if (!message.KeepsState()) return;
    EachLane([&](int lane) {
      for (int k = 0; k < 8; ++k) {
        const int64_t i = group * 128 + 16 * k + lane;
        if (i < begin || i >= end) continue;
        message.Keep(i, inputs[lane].of[k],
                     Value(format, sums[lane].of[k], scale));
      }
    });
  }

  DP_HOST_DEVICE uint32_t Code(float inverse, float x, uint32_t random_bits,
                               int sample, int64_t i) const {
    const float scaled = std::fabs(x) * inverse;
    const float y = scaled < format.top() ? scaled : format.top();
    const float normal = format.smallest_normal();
    uint32_t z = FloatBits(y + (y < normal ? normal : y));
    const int dropped = format.dropped_bits();
    if (!format.is_stochastic) {
      z += (1u << (dropped - 1)) - 1 + (z >> dropped & 1);
    } else {
      const int shift = dropped - 16;
      z += random_bits << shift;
      const uint32_t mask = (1u << dropped) - 1;
      if ((z & mask) > mask + 1 - (1u << shift)) {
        const FourWords tie =
            random.Block(static_cast<uint32_t>(i / 4), 2 * sample + 1);
        z += tie.word[i % 4] >> (32 - shift);
      }
    }
    const uint32_t magnitude = (z >> dropped) - format.base();
    const uint32_t sign = FloatBits(x) >> 31;
    return magnitude == 0 ? 0 : magnitude | sign << (format.bits() - 1);
  }
};

/// Half warp `group` decodes 64 elements.
struct MinifloatDecode {
  MinifloatFormat format;
  DecodeMessage message;
  const uint8_t* payload;
  uint32_t* problem;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    const int64_t block = format.block == 0 ? message.count : format.block;
    const int64_t code_bytes = MinifloatCodeBytes(format, message.count);
    const uint8_t* const codes =
        payload + 2 * MinifloatNumBlocks(format, message.count);
    EachLane([&](int lane) {
      if (group == 0 && lane < format.num_samples &&
          !UnusedBitsAreZero(codes + lane * code_bytes,
                             message.count * format.bits())) {
        AtomicOr(problem, kUnusedBitsAreSet);
      }
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i >= message.count) continue;
        uint16_t scale;
        std::memcpy(&scale, payload + 2 * QuotientOf(i, block), sizeof(scale));
        if (!IsMinifloatScale(scale)) AtomicOr(problem, kImpossibleScale);
        float sum = 0;
        for (int sample = 0; sample < format.num_samples; ++sample) {
          sum += MinifloatEncode::Level(
              format, ReadCode(format.bits(), codes + sample * code_bytes,
                               code_bytes, i));
        }
        message.Put(i, MinifloatEncode::Value(format, sum, scale));
      }
    });
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_MINIFLOAT_KERNELS_H_
