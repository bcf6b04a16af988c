// The 8-bit logarithmic block scales of the `int` codec: what both the
// reference kernel and the vector kernel compute once per block.
//
// A scale code is a 7-bit magnitude and a flag. Magnitudes 1..63 are a fine
// grid, three per octave, over 21 octaves that end at the payload's window;
// magnitudes 64..126 are powers of 16 over the whole range of fp32, so that no
// finite block is lost, whatever its neighbours hold. 0 is an all-zero block,
// 127 a block with a NaN or an infinity.
//
//   value = (code * multiplier - offset) * unit
//
// 3 to 8 bits: levels -2^(b-1) .. 2^(b-1)-1 times unit, which the flag negates
// so that the block's largest magnitude has the longer side. 2 bits: levels -3,
// -1, 1, 3 times unit, or -1, 0, 1 times unit if the flag is set. 1 bit: -unit,
// unit.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_INT_SCALE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_INT_SCALE_H_

#include <cfloat>
#include <cstdint>

#include "absl/base/attributes.h"
#include "base/float_cast.h"
#include "base/host_device.h"

namespace deltapipe {

/// What the values of a block are taken for when their clip is computed, not
/// searched.
enum class IntClipModel { kNone, kLaplace, kGauss };

struct IntFormat {
  int bits = 8;        // 1..8
  int64_t block = 64;  // a multiple of 16
  bool is_stochastic = false;
  /// May clip, so that the squared error is least; never with is_stochastic.
  bool searches_clip = true;
  /// With searches_clip: computes the clip.
  IntClipModel model = IntClipModel::kNone;
};

/// How one block is quantized. t = x * inverse + center; code = t rounded to
/// nearest, ties to even, after clamping to [low, high].
struct IntScale {
  uint8_t code;
  float unit;
  float inverse;
  float center;
  float low;
  float high;
  float multiplier;
  float offset;
};

constexpr uint8_t kIntScaleFlag = 0x80;
constexpr uint8_t kIntScaleMagnitude = 0x7F;
constexpr uint8_t kIntScaleZero = 0;
constexpr uint8_t kIntScaleNonFinite = 127;
constexpr int kIntFineMagnitudes = 63;
constexpr int kIntMaxWindow = 235;
constexpr int kIntMaxCandidates = 11;

/// 2^(thirds/3) for an exponent in units of thirds, kept within the normal
/// numbers: 2^-126 below, FLT_MAX above.
DP_HOST_DEVICE inline float IntPowerOfThirds(int thirds) {
  constexpr uint32_t kMantissa[3] = {0, 0x214518, 0x4B2FF5};
  const int shifted = thirds + 3 * 150;  // positive for all windows
  const int exponent = shifted / 3 - 150;
  if (exponent < -126) return 0x1p-126f;
  if (exponent > 127) return FLT_MAX;
  return BitsToFloat(static_cast<uint32_t>(exponent + 127) << 23 |
                     kMantissa[shifted % 3]);
}

/// The exponent of the first fine magnitude: the window, a byte of the payload,
/// counts octaves from the smallest normal number. The fine grid is the same
/// for all windows, each shows another part of it.
DP_HOST_DEVICE inline int IntWindowBottom(int window) { return window - 126; }

/// The unit that `magnitude` (1..126) stands for.
DP_HOST_DEVICE inline float IntUnit(int window, int magnitude) {
  if (magnitude <= kIntFineMagnitudes) {
    return IntPowerOfThirds(3 * IntWindowBottom(window) + magnitude - 1);
  }
  return magnitude == 126 ? FLT_MAX
                          : IntPowerOfThirds(3 * (-126 + 4 * (magnitude - 64)));
}

/// The window for a payload whose largest and median block maxima have these
/// fp32 exponent fields. It reaches up to what the largest block needs, but no
/// further than 14 octaves above the median, so that a few wild blocks do not
/// take the grid away from the others.
DP_HOST_DEVICE inline int IntWindow(const IntFormat& format, int largest_field,
                                    int median_field) {
  const int field =
      largest_field < median_field + 14 ? largest_field : median_field + 14;
  // A maximum below 2^(e + 1) needs units up to 2^(e + 1) / 2^(bits - 1), up to
  // an octave more where levels are fewer; the grid has 20 octaves below.
  const int top = (field - 127) - (format.bits - 1) + 2;
  const int window = top - 20 + 126;
  return window < 0 ? 0 : window > kIntMaxWindow ? kIntMaxWindow : window;
}

/// The smallest magnitude whose unit is >= target; 126 if there is none.
ABSL_ATTRIBUTE_ALWAYS_INLINE DP_HOST_DEVICE inline int IntCeilMagnitude(
    int window, float target) {
  const uint32_t bits = FloatBits(target);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const uint32_t mantissa = bits & 0x7FFFFFu;
  // A sum, since branches on mantissas cannot be predicted.
  const int above = static_cast<int>(mantissa != 0) +
                    static_cast<int>(mantissa > 0x214518) +
                    static_cast<int>(mantissa > 0x4B2FF5);
  const int thirds =
      (exponent == -127 ? 3 * -126 : 3 * exponent + above);  // 2^-126 at least
  const int fine = thirds - 3 * IntWindowBottom(window) + 1;
  if (fine >= 1 && fine <= kIntFineMagnitudes) return fine;
  // Powers of 16 from 2^-126.
  const int coarse = 64 + (thirds + 3 * 126 + 11) / 12;
  if (fine < 1 &&
      IntUnit(window, coarse > 126 ? 126 : coarse) > IntUnit(window, 1)) {
    return 1;
  }
  return coarse > 126 ? 126 : coarse;
}

DP_HOST_DEVICE inline int IntLowerMagnitude(int magnitude) {
  return magnitude == 1 || magnitude == 64 ? magnitude : magnitude - 1;
}

/// The units of one payload and their reciprocals, by magnitude.
class IntUnits {
 public:
  explicit IntUnits(int window) : window_(window) {
    for (int magnitude = 1; magnitude <= 126; ++magnitude) {
      unit_[magnitude] = IntUnit(window, magnitude);
      inverse_[magnitude] = 1.0f / unit_[magnitude];
    }
  }
  int window() const { return window_; }
  float unit(int magnitude) const { return unit_[magnitude]; }
  float inverse(int magnitude) const { return inverse_[magnitude]; }

 private:
  int window_;
  float unit_[128];
  float inverse_[128];
};

/// Everything that `code` means. `code` must not be zero or non-finite.
/// `units` is an IntUnits or one that computes what it is asked for. Inlined,
/// since encoders call it for each block and know the number of bits.
template <class Units>
ABSL_ATTRIBUTE_ALWAYS_INLINE DP_HOST_DEVICE inline IntScale IntScaleOf(
    const IntFormat& format, const Units& units, uint8_t code) {
  const float half_range = static_cast<float>(1 << (format.bits - 1));
  const bool has_flag = (code & kIntScaleFlag) != 0;
  const float unit = units.unit(code & kIntScaleMagnitude);
  const float inverse = units.inverse(code & kIntScaleMagnitude);
  IntScale scale;
  scale.code = code;
  scale.high = 2 * half_range - 1;
  if (format.bits == 1 || (format.bits == 2 && !has_flag)) {
    scale.unit = unit;
    scale.inverse = 0.5f * inverse;
    scale.low = 0;
    scale.center = half_range - 0.5f;
    scale.multiplier = 2;
    scale.offset = 2 * half_range - 1;
    return scale;
  }
  const bool is_negative = format.bits > 2 && has_flag;
  scale.unit = is_negative ? -unit : unit;
  scale.inverse = is_negative ? -inverse : inverse;
  scale.low = format.bits == 2 || !format.searches_clip ? 1.0f : 0.0f;
  scale.center = half_range;
  scale.multiplier = 1;
  scale.offset = half_range;
  return scale;
}

/// The scale of a format that does not clip, for a block of largest magnitude
/// `block_max` > 0.
template <class Units>
ABSL_ATTRIBUTE_ALWAYS_INLINE DP_HOST_DEVICE inline IntScale IntCoveringScale(
    const IntFormat& format, const Units& units, float block_max) {
  const float levels = format.bits == 1   ? 1
                       : format.bits == 2 ? 3
                                          : (1 << (format.bits - 1)) - 1;
  const int magnitude = IntCeilMagnitude(units.window(), block_max / levels);
  return IntScaleOf(format, units, static_cast<uint8_t>(magnitude));
}

/// The number alpha that minimises the mean squared error of 2^bits even levels
/// over -alpha .. alpha, in units of the mean magnitude (Laplace) or the
/// standard deviation (Gauss) of values of mean 0: ACIQ, Banner, Nahshan,
/// Soudry, "Post Training 4-bit Quantization of Convolutional Networks for
/// Rapid-Deployment", NeurIPS 2019, arXiv 1810.05723, whose errors are
///   Laplace  2 e^-a + a^2 / (3 4^bits)
///   Gauss    (1 + a^2) (1 - erf(a / sqrt 2)) - sqrt(2 / pi) a e^(-a^2 / 2)
///            + a^2 / (3 4^bits)
DP_HOST_DEVICE inline float IntOptimalClip(IntClipModel model, int bits) {
  constexpr float kLaplace[8] = {1.8628f, 2.8307f, 3.8972f, 5.0286f,
                                 6.2048f, 7.4131f, 8.6456f, 9.8968f};
  constexpr float kGauss[8] = {1.2399f, 1.7106f, 2.1516f, 2.5591f,
                               2.9362f, 3.2869f, 3.6151f, 3.9240f};
  return (model == IntClipModel::kLaplace ? kLaplace : kGauss)[bits - 1];
}

/// Half of a third of an octave: the nearest unit is the smallest one that is
/// not below this times the target.
constexpr float kIntHalfThird = 0.8908987f;

/// Lists the scales to try for a block of largest magnitude `block_max` > 0,
/// the best-covering first; returns their number. `positive_max`: no element
/// equals -block_max. `spread` is what the format's model wants to know, the
/// mean magnitude or the root of the mean square; without a model the mean
/// magnitude, at 1 bit only. `scales` is a pointer to kIntMaxCandidates of
/// them, or what takes them one by one and has a code for each.
template <class Units, class Scales>
DP_HOST_DEVICE inline int ListIntScales(const IntFormat& format,
                                        const Units& units, float block_max,
                                        bool positive_max, float spread,
                                        Scales scales) {
  if (!format.searches_clip) {
    scales[0] = IntCoveringScale(format, units, block_max);
    return 1;
  }
  const int window = units.window();
  const int bits = format.bits;
  const float half_range = static_cast<float>(1 << (bits - 1));
  const bool has_model = format.model != IntClipModel::kNone;
  // Half the width of a level at 1 and 2 bits, the whole at more.
  float target = spread;
  if (has_model) {
    const float clip = spread * IntOptimalClip(format.model, bits);
    target = (clip < block_max ? clip : block_max) /
             (bits <= 2 ? 2 * half_range : half_range);
  }
  if (bits == 1) {
    // The nearest on the logarithmic grid: 2^(-1/6), then up. A power of 16 is
    // rounded down, which keeps the error below block_max.
    int magnitude = IntCeilMagnitude(window, target * kIntHalfThird);
    if (magnitude > 64 && units.unit(magnitude) > target) --magnitude;
    scales[0] = IntScaleOf(format, units, static_cast<uint8_t>(magnitude));
    return 1;
  }
  const uint8_t side = bits > 2 && positive_max ? kIntScaleFlag : 0;
  if (has_model) {
    const int magnitude = IntCeilMagnitude(window, target * kIntHalfThird);
    // Where the grid is coarse the search does better.
    if (magnitude <= kIntFineMagnitudes &&
        units.unit(magnitude) < 1.25f * target) {
      scales[0] =
          IntScaleOf(format, units, static_cast<uint8_t>(magnitude | side));
      return 1;
    }
  }
  int count = 0;
  const auto add_run = [&](float target, int length, uint8_t flag) {
    int magnitude = IntCeilMagnitude(window, target);
    for (int i = 0; i < length; ++i) {
      scales[count++] =
          IntScaleOf(format, units, static_cast<uint8_t>(magnitude | flag));
      const int lower = IntLowerMagnitude(magnitude);
      if (lower == magnitude) break;
      magnitude = lower;
    }
  };
  if (bits == 2) {
    add_run(block_max, 5, kIntScaleFlag);
    // Levels without zero only where the grid is fine: elsewhere their error
    // could exceed block_max.
    if ((scales[0].code & kIntScaleMagnitude) <= kIntFineMagnitudes) {
      add_run(block_max / 3, 6, 0);
    }
    return count;
  }
  add_run(block_max / half_range, bits == 3 ? 3 : 2, side);
  return count;
}

/// The squared error of `scale`, in units of its own step, as one that can be
/// compared with that of `first`.
DP_HOST_DEVICE inline float IntWeightedError(const IntScale& first,
                                             const IntScale& scale,
                                             float squared_error) {
  const float ratio =
      (scale.unit / first.unit) * (scale.multiplier / first.multiplier);
  return squared_error * ratio * ratio;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_INT_SCALE_H_
