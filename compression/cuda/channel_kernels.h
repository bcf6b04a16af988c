// The kernels of `aqsgd`: payloads of codecs/aqsgd.h, equal to those of the
// host in every bit.
#ifndef DELTAPIPE_COMPRESSION_CUDA_CHANNEL_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_CHANNEL_KERNELS_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/float_cast.h"
#include "base/host_device.h"
#include "compression/cuda/code_stream.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/kernels/largest_magnitude.h"

namespace deltapipe {
namespace cuda {

struct ChannelFormat {
  int bits = 4;
  int64_t row = 0;  // channels per row; 0: one channel

  DP_HOST_DEVICE int64_t NumChannels(int64_t count) const {
    return SmallerOf(count, row == 0 ? 1 : row);
  }
  DP_HOST_DEVICE int64_t CodeBytes(int64_t count) const {
    return (count * bits + 7) / 8;
  }
  DP_HOST_DEVICE int64_t PayloadBytes(int64_t count) const {
    return 2 * NumChannels(count) + CodeBytes(count);
  }
};

constexpr uint16_t kChannelNaN = 0x7E00;  // as fp16

/// The rows that one half warp looks through for 16 channels, or the groups of
/// 16 values where there is one channel.
constexpr int64_t kChannelRows = 64;

/// Half warps first go over the channels by 16, then down the rows. `maxima`
/// (fp32 bits, one per channel) are 0 before.
struct ChannelMaxima {
  ChannelFormat format;
  EncodeMessage message;
  Turn turn;
  uint32_t* maxima;

  DP_HOST_DEVICE static int64_t NumParts(const ChannelFormat& format,
                                         int64_t count) {
    const int64_t channels = format.NumChannels(count);
    const int64_t width = channels == 1 ? kLanes : channels;
    const int64_t rows = (count + width - 1) / width;
    return (width + kLanes - 1) / kLanes *
           ((rows + kChannelRows - 1) / kChannelRows);
  }

  DP_HOST_DEVICE void operator()(int64_t part,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine()) return;
    const int64_t channels = format.NumChannels(message.count);
    const int64_t width = channels == 1 ? kLanes : channels;
    const int64_t parts_per_row = (width + kLanes - 1) / kLanes;
    const int64_t first_row = part / parts_per_row * kChannelRows;
    Lanes<uint32_t> largest;
    EachLane([&](int lane) {
      const int64_t channel = part % parts_per_row * kLanes + lane;
      largest[lane] = 0;
      if (channel >= width) return;
      for (int64_t row = first_row; row < first_row + kChannelRows; ++row) {
        const int64_t i = row * width + channel;
        if (i >= message.count) break;
        largest[lane] =
            LargerOf(largest[lane], MagnitudeBits(message.Input(i)));
      }
    });
    const uint32_t of_all = LargestOf(largest);
    EachLane([&](int lane) {
      const int64_t channel = part % parts_per_row * kLanes + lane;
      if (channels == 1) {
        if (lane == 0) AtomicMax(maxima, of_all);
      } else if (channel < width) {
        AtomicMax(maxima + channel, largest[lane]);
      }
    });
  }
};

DP_HOST_DEVICE inline uint16_t ChannelScale(uint32_t largest_bits) {
  return largest_bits < kInfinityBits
             ? FloatToFloat16(BitsToFloat(largest_bits))
             : kChannelNaN;
}

DP_HOST_DEVICE inline float ChannelValue(int bits, uint16_t scale,
                                         uint32_t code) {
  if (scale == kChannelNaN) return BitsToFloat(0x7FC00000u);
  const float half = static_cast<float>(1 << (bits - 1));
  return (static_cast<float>(code) - half) / half * Float16ToFloat(scale);
}

/// Half warp `group` encodes 64 elements; the first write the scales as well,
/// 64 each.
struct ChannelEncode {
  ChannelFormat format;
  EncodeMessage message;
  Turn turn;
  const uint32_t* maxima;
  uint8_t* payload;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t group, HalfWarpMemory* memory) const {
    if (!turn.IsMine() || group * 64 >= message.count) return;
    const int64_t channels = format.NumChannels(message.count);
    const int64_t last = SmallerOf(group * 64 + 64, message.count);
    EachLane([&](int lane) {
      if (group == 0 && lane == 0 && outcome != nullptr) {
        outcome->payload_bytes = format.PayloadBytes(message.count);
        outcome->is_delta = message.prediction == Prediction::kRecord;
      }
      for (int j = 0; j < 4; ++j) {
        const int place = 16 * j + lane;
        const int64_t i = group * 64 + place;
        if (i < channels) {
          const uint16_t scale = ChannelScale(maxima[i]);
          std::memcpy(payload + 2 * i, &scale, sizeof(scale));
        }
        uint32_t code = 0;
        if (i < last) {
          const float input = message.Input(i);
          const uint16_t scale =
              ChannelScale(maxima[i - QuotientOf(i, channels) * channels]);
          code = Code(scale, input);
          if (message.KeepsState()) {
            message.Keep(i, input, ChannelValue(format.bits, scale, code));
          }
        }
        memory->SetCode(place, code);
      }
    });
    WriteCodes(format.bits, *memory, 0, static_cast<int>(last - group * 64),
               payload + 2 * channels + group * 8 * format.bits);
  }

 private:
  DP_HOST_DEVICE uint32_t Code(uint16_t scale, float x) const {
    if (scale == kChannelNaN) return 0;
    const float divisor =
        Float16ToFloat(FloatToFloat16(Float16ToFloat(scale) + 1e-6f));
    const float half = static_cast<float>(1 << (format.bits - 1));
    const float level = x / divisor * half;
    const float above = level < -half ? -half : level;
    return static_cast<uint32_t>(
        std::nearbyint(above > half - 1 ? half - 1 : above) + half);
  }
};

/// Half warp `group` decodes 64 elements and checks 64 scales.
struct ChannelDecode {
  ChannelFormat format;
  DecodeMessage message;
  const uint8_t* payload;
  uint32_t* problem;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    const int64_t channels = format.NumChannels(message.count);
    const int64_t code_bytes = format.CodeBytes(message.count);
    const uint8_t* const codes = payload + 2 * channels;
    EachLane([&](int lane) {
      if (group == 0 && lane == 0 &&
          !UnusedBitsAreZero(codes, message.count * format.bits)) {
        AtomicOr(problem, kUnusedBitsAreSet);
      }
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i >= message.count) continue;
        if (i < channels) {
          const uint16_t own = ScaleOf(i);
          if (own >= 0x7C00 && own != kChannelNaN) {
            AtomicOr(problem, kImpossibleScale);
          }
        }
        const uint16_t scale = ScaleOf(i - QuotientOf(i, channels) * channels);
        const float value = ChannelValue(
            format.bits, scale, ReadCode(format.bits, codes, code_bytes, i));
        message.Put(i, value);
      }
    });
  }

 private:
  DP_HOST_DEVICE uint16_t ScaleOf(int64_t channel) const {
    uint16_t scale;
    std::memcpy(&scale, payload + 2 * channel, sizeof(scale));
    return scale;
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_CHANNEL_KERNELS_H_
