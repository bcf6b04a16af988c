// The kernels of `int` with affine levels and scales in bf16 or fp32: payloads
// of kernels/int_block.h in blocks along rows, equal to those of the host in
// every bit. Covering levels only: nothing is searched.
//
// ActNN, arXiv 2104.14129, section 4.1, is where saved activations have them
// from; the origin is rounded down and the scale up, so that nothing is
// clipped.
#ifndef DELTAPIPE_COMPRESSION_CUDA_AFFINE_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_AFFINE_KERNELS_H_

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "base/float_cast.h"
#include "base/host_device.h"
#include "compression/cuda/code_stream.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/cuda/random_words.h"
#include "compression/kernels/directed_bfloat16.h"
#include "compression/kernels/largest_magnitude.h"

namespace deltapipe {
namespace cuda {

struct AffineFormat {
  int bits = 4;
  int64_t block = 256;  // a multiple of 16
  bool is_stochastic = true;
  bool has_float32_scales = false;

  DP_HOST_DEVICE int64_t NumBlocks(int64_t count) const {
    return (count + block - 1) / block;
  }
  DP_HOST_DEVICE int64_t ScaleBytes() const {
    return has_float32_scales ? 4 : 2;
  }
  /// Where origins and codes begin: scales do at 0.
  DP_HOST_DEVICE int64_t Origins(int64_t count) const {
    return NumBlocks(count) * ScaleBytes();
  }
  DP_HOST_DEVICE int64_t Codes(int64_t count) const {
    return Origins(count) + NumBlocks(count) * 2;
  }
  /// The last block takes 2 bytes or more.
  DP_HOST_DEVICE int64_t CodeBytes(int64_t count) const {
    const int64_t bytes = (count * bits + 7) / 8;
    const int64_t full = count / block * (block * bits / 8);
    return bytes == full + 1 ? bytes + 1 : bytes;
  }
  DP_HOST_DEVICE int64_t PayloadBytes(int64_t count) const {
    return Codes(count) + CodeBytes(count);
  }
};

/// A block's levels: base + code * step in double. `scale` as it is stored.
struct AffineGrid {
  uint32_t scale = 0;
  uint16_t origin = 0;
  bool has_float32_scales = false;

  DP_HOST_DEVICE double base() const { return BFloat16ToFloat(origin); }
  DP_HOST_DEVICE double step() const {
    return has_float32_scales
               ? BitsToFloat(scale & 0x7FFFFFFFu)
               : BFloat16ToFloat(static_cast<uint16_t>(scale & 0x7FFFu));
  }
  DP_HOST_DEVICE bool IsConstant() const {
    return (scale & (has_float32_scales ? 0x7FFFFFFFu : 0x7FFFu)) == 0;
  }
  /// Of a block that is not constant. False: all its elements are NaN. Written
  /// so that a NaN fails.
  DP_HOST_DEVICE bool HasLevels() const {
    return step() <= double{FLT_MAX} &&
           std::fabs(base()) <= 256 * double{FLT_MAX};
  }
  DP_HOST_DEVICE float Value(uint32_t code) const {
    const double value = base() + static_cast<double>(code) * step();
    return static_cast<float>(value < -double{FLT_MAX}  ? -double{FLT_MAX}
                              : value > double{FLT_MAX} ? double{FLT_MAX}
                                                        : value);
  }
};

DP_HOST_DEVICE inline float AffineNaN() { return BitsToFloat(0x7FC00000u); }

/// Half warp `index` encodes block `index`.
struct AffineEncode {
  AffineFormat format;
  EncodeMessage message;
  Turn turn;
  RandomWords random;
  uint8_t* payload;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t index, HalfWarpMemory* memory) const {
    const int64_t begin = index * format.block;
    if (!turn.IsMine() || begin >= message.count) return;
    const int64_t end = SmallerOf(begin + format.block, message.count);
    float low = 0, high = 0;
    const bool is_finite = Range(begin, end, &low, &high);
    const bool is_constant = is_finite && low == high;
    const uint32_t constant = FloatBits(message.Input(begin));
    AffineGrid grid;
    grid.has_float32_scales = format.has_float32_scales;
    if (is_constant) {
      grid.origin = static_cast<uint16_t>(constant >> 16);
    } else if (is_finite) {
      Cover(low, high, &grid);
    } else {
      grid.scale = format.has_float32_scales ? 0x7FC00000u : kBFloat16NaN;
    }
    const bool has_codes = is_finite && !is_constant;
    uint8_t* const codes = payload + format.Codes(message.count) +
                           index * (format.block * format.bits / 8);
    WriteFields(index, grid);
    const double inverse = has_codes ? 1 / grid.step() : 0.0;
    const float fill = is_constant ? BitsToFloat(constant) : AffineNaN();
    const uint32_t first_group =
        static_cast<uint32_t>(index * ((format.block + 63) / 64));
    for (int64_t at = begin; at < end; at += 64) {
      EachLane([&](int lane) {
        FourWords words{};
        if (format.is_stochastic && has_codes) {
          const uint32_t group =
              first_group + static_cast<uint32_t>((at - begin) / 64);
          words = random.Block(16 * group + static_cast<uint32_t>(lane));
        }
        for (int j = 0; j < 4; ++j) {
          const int64_t i = at + 16 * j + lane;
          uint32_t code = 0;
          if (i < end) {
            const float input = message.Input(i);
            if (has_codes) code = Code(grid, inverse, input, words.word[j]);
            if (message.KeepsState()) {
              message.Keep(i, input, has_codes ? grid.Value(code) : fill);
            }
          }
          memory->SetCode(16 * j + lane, code);
        }
      });
      WriteCodes(format.bits, *memory, 0,
                 static_cast<int>(SmallerOf(end - at, 64)),
                 codes + (at - begin) / 8 * format.bits);
    }
    FinishCodes(end - begin, is_constant ? constant : 0, is_constant, codes);
  }

 private:
  DP_HOST_DEVICE bool Range(int64_t begin, int64_t end, float* low,
                            float* high) const {
    Lanes<float> largest, negated_least;
    Lanes<bool> is_not_finite;
    EachLane([&](int lane) {
      is_not_finite[lane] = false;
      largest[lane] = negated_least[lane] = -FLT_MAX;
      for (int64_t i = begin + lane; i < end; i += kLanes) {
        const float input = message.Input(i);
        if (MagnitudeBits(input) >= kInfinityBits) is_not_finite[lane] = true;
        if (largest[lane] < input) largest[lane] = input;
        if (negated_least[lane] < -input) negated_least[lane] = -input;
      }
    });
    // -0 to 0.
    *low = -LargestOf(negated_least) + 0.0f;
    *high = LargestOf(largest) + 0.0f;
    return Ballot(is_not_finite) == 0;
  }

  /// IntBlockCoder::ListAffine and UnitAtLeast, of levels that cover.
  DP_HOST_DEVICE void Cover(float low, float high, AffineGrid* grid) const {
    constexpr double kSmallestUnit = 0x1p-126;
    grid->origin = BFloat16AtMost(low);
    const double steps = (1 << format.bits) - 1;
    const double full = (double{high} - grid->base()) / steps;
    const double above = full < kSmallestUnit ? kSmallestUnit : full;
    const double unit = above > double{FLT_MAX} ? double{FLT_MAX} : above;
    if (!format.has_float32_scales) {
      grid->scale = BFloat16AtLeast(unit);
      return;
    }
    const float narrow = static_cast<float>(unit);
    grid->scale = FloatBits(narrow) + (double{narrow} < unit ? 1u : 0u);
  }

  DP_HOST_DEVICE uint32_t Code(const AffineGrid& grid, double inverse, float x,
                               uint32_t word) const {
    const double position = (double{x} - grid.base()) * inverse;
    const double high = (1 << format.bits) - 1;
    const double above = position < 0 ? 0.0 : position;
    const double t = above > high ? high : above;
    if (!format.is_stochastic) {
      return static_cast<uint32_t>(std::nearbyint(t));
    }
    const double floor = std::floor(t);
    const double uniform = static_cast<double>(word >> 8) * 0x1.0p-24;
    return static_cast<uint32_t>(floor) + (uniform < t - floor ? 1u : 0u);
  }

  DP_HOST_DEVICE void WriteFields(int64_t index, const AffineGrid& grid) const {
    EachLane([&](int lane) {
      if (lane != 0) return;
      const int64_t scale_bytes = format.ScaleBytes();
      uint8_t* const scale = payload + index * scale_bytes;
      uint8_t* const origin =
          payload + format.Origins(message.count) + index * 2;
      for (int64_t byte = 0; byte < scale_bytes; ++byte) {
        scale[byte] = static_cast<uint8_t>(grid.scale >> (8 * byte));
      }
      origin[0] = static_cast<uint8_t>(grid.origin);
      origin[1] = static_cast<uint8_t>(grid.origin >> 8);
      if (index > 0 || outcome == nullptr) return;
      outcome->payload_bytes = format.PayloadBytes(message.count);
      outcome->is_delta = message.prediction == Prediction::kRecord;
    });
  }

  /// The second byte of a block with one byte of codes, and the lower bits of a
  /// constant, which take the place of codes.
  DP_HOST_DEVICE void FinishCodes(int64_t count, uint32_t constant,
                                  bool is_constant, uint8_t* codes) const {
    EachLane([&](int lane) {
      if (lane != 0) return;
      if (is_constant) {
        codes[0] = static_cast<uint8_t>(constant);
        codes[1] = static_cast<uint8_t>(constant >> 8);
      } else if (count * format.bits <= 8) {
        codes[1] = 0;
      }
    });
  }
};

/// Half warp `group` decodes 64 elements.
struct AffineDecode {
  AffineFormat format;
  DecodeMessage message;
  const uint8_t* payload;
  uint32_t* problem;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    const uint8_t* const codes = payload + format.Codes(message.count);
    const int64_t code_bytes = format.CodeBytes(message.count);
    EachLane([&](int lane) {
      if (group == 0 && lane == 0 && !LastBlockIsFilledUp(codes, code_bytes)) {
        AtomicOr(problem, kUnusedBitsAreSet);
      }
      // Of 64 elements most share a block.
      int64_t block = -1;
      AffineGrid grid;
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i >= message.count) continue;
        const int64_t block_of_i = QuotientOf(i, format.block);
        if (block_of_i != block) {
          block = block_of_i;
          grid = GridOf(block);
        }
        float value;
        if (grid.IsConstant()) {
          value =
              Constant(grid, codes + block * (format.block * format.bits / 8));
        } else if (grid.HasLevels()) {
          value = grid.Value(ReadCode(format.bits, codes, code_bytes, i));
        } else {
          value = AffineNaN();
        }
        message.Put(i, value);
      }
    });
  }

 private:
  DP_HOST_DEVICE AffineGrid GridOf(int64_t block) const {
    const int64_t scale_bytes = format.ScaleBytes();
    const uint8_t* const scale = payload + block * scale_bytes;
    const uint8_t* const origin =
        payload + format.Origins(message.count) + block * 2;
    AffineGrid grid;
    grid.has_float32_scales = format.has_float32_scales;
    for (int64_t byte = 0; byte < scale_bytes; ++byte) {
      grid.scale |= static_cast<uint32_t>(scale[byte]) << (8 * byte);
    }
    grid.origin = static_cast<uint16_t>(origin[0] | origin[1] << 8);
    return grid;
  }

  DP_HOST_DEVICE static float Constant(const AffineGrid& grid,
                                       const uint8_t* codes) {
    const uint32_t bits = static_cast<uint32_t>(grid.origin) << 16 |
                          static_cast<uint32_t>(codes[1]) << 8 | codes[0];
    return (bits & 0x7FFFFFFFu) < kInfinityBits ? BitsToFloat(bits)
                                                : AffineNaN();
  }

  /// IntBlockCoder::UnusedBitsAreZero of a last block that is shorter.
  DP_HOST_DEVICE bool LastBlockIsFilledUp(const uint8_t* codes,
                                          int64_t code_bytes) const {
    const int64_t full = QuotientOf(message.count, format.block);
    const int64_t count = message.count - full * format.block;
    if (count == 0) return true;
    const uint8_t* const last = codes + full * (format.block * format.bits / 8);
    const int64_t bytes = codes + code_bytes - last;
    const int64_t used = GridOf(full).IsConstant() ? 16 : count * format.bits;
    uint32_t unused = used % 8 == 0 ? 0u : last[used / 8] >> (used % 8);
    for (int64_t i = (used + 7) / 8; i < bytes; ++i) unused |= last[i];
    return unused == 0;
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_AFFINE_KERNELS_H_
