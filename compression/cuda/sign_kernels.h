// The kernels of `sign`: payloads of codecs/sign.h. With blocks they are those
// of the host in every bit; with block=0 the scale is a sum of sums over runs,
// whose last bits differ from the host's.
#ifndef DELTAPIPE_COMPRESSION_CUDA_SIGN_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_SIGN_KERNELS_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/host_device.h"
#include "compression/cuda/code_stream.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"

namespace deltapipe {
namespace cuda {

struct SignFormat {
  int64_t block = 2048;  // 0: all values
  bool is_mean = false;
};

/// The values that one half warp sums where there are no blocks.
constexpr int64_t kSignRun = 2048;

DP_HOST_DEVICE inline int64_t SignNumBlocks(const SignFormat& format,
                                            int64_t count) {
  if (format.block == 0) return count == 0 ? 0 : 1;
  return (count + format.block - 1) / format.block;
}

DP_HOST_DEVICE inline int64_t SignPayloadBytes(const SignFormat& format,
                                               int64_t count) {
  return 4 * SignNumBlocks(format, count) + (count + 7) / 8;
}

/// The scale of `count` values of this sum of squares, or of magnitudes.
DP_HOST_DEVICE inline float SignScale(const SignFormat& format, double sum,
                                      int64_t count) {
  if (!std::isfinite(sum)) return BitsToFloat(0x7FC00000u);
  const double mean = sum / static_cast<double>(count);
  return static_cast<float>(format.is_mean ? mean : std::sqrt(mean));
}

/// What a sign decodes to; bits are flipped, so that NaN is negated everywhere.
DP_HOST_DEVICE inline float SignValue(bool is_positive, float scale) {
  return is_positive ? scale : BitsToFloat(FloatBits(scale) ^ 0x80000000u);
}

/// Half warp `index` packs the signs of block `index`, or of kSignRun values
/// where there are no blocks: then the sum goes to `sums` and SignConclude
/// follows. Otherwise writes the scale and updates the state.
struct SignEncode {
  SignFormat format;
  EncodeMessage message;
  Turn turn;
  uint8_t* payload;
  double* sums;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t index,
                                 HalfWarpMemory* /*memory*/) const {
    const int64_t size = format.block == 0 ? kSignRun : format.block;
    const int64_t begin = index * size;
    if (!turn.IsMine() || begin >= message.count) return;
    const int64_t end = SmallerOf(begin + size, message.count);
    uint8_t* const bits = payload + 4 * SignNumBlocks(format, message.count);
    Lanes<double> sums_of_lanes;
    EachLane([&](int lane) { sums_of_lanes[lane] = 0; });
    for (int64_t at = begin; at < end; at += 64) {
      Lanes<float> inputs[4];
      EachLane([&](int lane) {
        for (int j = 0; j < 4; ++j) {
          const int64_t i = at + 16 * j + lane;
          const float input = i < end ? message.Input(i) : -1.0f;
          inputs[j][lane] = input;
          if (i >= end) continue;
          const double wide = input;
          sums_of_lanes[lane] += format.is_mean ? std::fabs(wide) : wide * wide;
        }
      });
      uint32_t votes[4];
      for (int j = 0; j < 4; ++j) {
        Lanes<bool> is_positive;
        EachLane([&](int lane) { is_positive[lane] = inputs[j][lane] >= 0; });
        votes[j] = Ballot(is_positive);
      }
      EachLane([&](int lane) {
        const int64_t byte = at / 8 + lane;
        if (lane < 8 && byte * 8 < end) {
          bits[byte] = static_cast<uint8_t>(votes[lane / 2] >> (lane % 2 * 8));
        }
      });
    }
    const double sum = SumOf(sums_of_lanes);
    if (format.block == 0) {
      EachLane([&](int lane) {
        if (lane == 0) sums[index] = sum;
      });
      return;
    }
    const float scale = SignScale(format, sum, end - begin);
    EachLane([&](int lane) {
      if (lane != 0) return;
      std::memcpy(payload + 4 * index, &scale, sizeof(scale));
      if (index > 0 || outcome == nullptr) return;
      outcome->payload_bytes = SignPayloadBytes(format, message.count);
      outcome->is_delta = message.prediction == Prediction::kRecord;
    });
    if (message.KeepsState()) KeepSigns(message, begin, end, scale);
  }

  DP_HOST_DEVICE static void KeepSigns(const EncodeMessage& message,
                                       int64_t begin, int64_t end,
                                       float scale) {
    EachLane([&](int lane) {
      for (int64_t i = begin + lane; i < end; i += kLanes) {
        const float input = message.Input(i);
        message.Keep(i, input, SignValue(input >= 0, scale));
      }
    });
  }
};

/// The one scale of a payload without blocks, from the sums of its runs.
struct SignConclude {
  SignFormat format;
  EncodeMessage message;
  Turn turn;
  uint8_t* payload;
  const double* sums;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine()) return;
    const int64_t num_runs = (message.count + kSignRun - 1) / kSignRun;
    Lanes<double> sums_of_lanes;
    EachLane([&](int lane) {
      sums_of_lanes[lane] = 0;
      for (int64_t run = lane; run < num_runs; run += kLanes) {
        sums_of_lanes[lane] += sums[run];
      }
    });
    const float scale = SignScale(format, SumOf(sums_of_lanes), message.count);
    EachLane([&](int lane) {
      if (lane != 0) return;
      std::memcpy(payload, &scale, sizeof(scale));
      if (outcome == nullptr) return;
      outcome->payload_bytes = SignPayloadBytes(format, message.count);
      outcome->is_delta = message.prediction == Prediction::kRecord;
    });
  }
};

/// Updates the state by runs, after SignConclude.
struct SignKeep {
  EncodeMessage message;
  Turn turn;
  const uint8_t* payload;

  DP_HOST_DEVICE void operator()(int64_t run,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine()) return;
    float scale;
    std::memcpy(&scale, payload, sizeof(scale));
    SignEncode::KeepSigns(message, run * kSignRun,
                          SmallerOf((run + 1) * kSignRun, message.count),
                          scale);
  }
};

/// Half warp `group` decodes 64 elements.
struct SignDecode {
  SignFormat format;
  DecodeMessage message;
  const uint8_t* payload;
  uint32_t* problem;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    const uint8_t* const bits =
        payload + 4 * SignNumBlocks(format, message.count);
    const int64_t block = format.block == 0 ? message.count : format.block;
    // Groups do not straddle blocks, which are multiples of 64.
    float scale;
    std::memcpy(&scale, payload + 4 * QuotientOf(group * 64, block),
                sizeof(scale));
    const uint32_t scale_bits = FloatBits(scale);
    EachLane([&](int lane) {
      if (lane == 0) {
        // Infinite or negative.
        if (scale_bits == 0x7F800000u || scale_bits >> 31 != 0) {
          AtomicOr(problem, kImpossibleScale);
        }
        if (group == 0 && !UnusedBitsAreZero(bits, message.count)) {
          AtomicOr(problem, kUnusedBitsAreSet);
        }
      }
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i >= message.count) continue;
        message.Put(i, SignValue((bits[i / 8] >> (i % 8) & 1) != 0, scale));
      }
    });
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_SIGN_KERNELS_H_
