#include "compression/kernels/int_block.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/float_cast.h"
#include "compression/kernels/bit_packing.h"
#include "compression/kernels/directed_bfloat16.h"
#include "compression/kernels/double_levels.h"
#include "compression/kernels/even_levels.h"
#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/philox_words.h"

namespace deltapipe {
namespace {

constexpr double kSmallestUnit = 0x1p-126;
constexpr uint32_t kFloat32NaN = 0x7FC00000u;
constexpr int kMaxCandidates = 20;

// Sums term(0) + ... + term(count - 1) over 8 lanes.
template <class Term>
double Sum(size_t count, Term term) {
  constexpr size_t kLanes = 8;
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (; i < count; ++i) lanes[i % kLanes] += term(i);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

inline double Clamp(double x, double low, double high) {
  return std::min(std::max(x, low), high);
}

// The least float >= value, for 0 < value <= FLT_MAX.
float FloatAtLeast(double value) {
  const float narrow = static_cast<float>(value);
  return narrow < value ? BitsToFloat(FloatBits(narrow) + 1) : narrow;
}

uint16_t NearestOrigin(double value) {
  return FloatToBFloat16(
      static_cast<float>(Clamp(value, -double{FLT_MAX}, double{FLT_MAX})));
}

}  // namespace

void IntWindowChooser::Add(absl::Span<const float> block) {
  const ValueRange range = RangeOfValues(block);
  if (!range.all_finite || (format_.is_affine && range.low == range.high)) {
    return;
  }
  // Affine: from where the origin will be.
  const double reach =
      format_.is_affine
          ? range.high - double{BFloat16ToFloat(BFloat16AtMost(range.low))}
          : std::max(range.high, -range.low);
  const uint32_t bits =
      FloatBits(static_cast<float>(std::min(reach, double{FLT_MAX})));
  if (bits != 0) ++histogram_[bits >> 23];
}

int IntWindowChooser::Window() const {
  int64_t total = 0;
  int largest = 0;
  for (int field = 0; field < 255; ++field) {
    total += histogram_[field];
    if (histogram_[field] != 0) largest = field;
  }
  if (total == 0) return 0;
  int median = 0;
  for (int64_t seen = histogram_[0]; 2 * seen < total;) {
    seen += histogram_[++median];
  }
  return IntWindow(format_.format, largest, median);
}

class IntBlockCoder::Candidates {
 public:
  void Add(uint32_t scale, uint16_t origin = 0) {
    fields_[size_++] = {scale, origin};
  }
  int size() const { return size_; }
  const IntBlockFields& operator[](int i) const { return fields_[i]; }

 private:
  int size_ = 0;
  IntBlockFields fields_[kMaxCandidates];
};

uint32_t IntBlockCoder::FlagBit() const {
  switch (format_.field) {
    case IntScaleField::kLog8:
      return kIntScaleFlag;
    case IntScaleField::kBFloat16:
      return 0x8000u;
    default:
      return 0x80000000u;
  }
}

uint32_t IntBlockCoder::UnitAtLeast(double unit) const {
  unit = Clamp(unit, kSmallestUnit, FLT_MAX);
  switch (format_.field) {
    case IntScaleField::kLog8:
      return IntCeilMagnitude(units_.window(), FloatAtLeast(unit));
    case IntScaleField::kBFloat16:
      return BFloat16AtLeast(unit);
    default:
      return FloatBits(FloatAtLeast(unit));
  }
}

uint32_t IntBlockCoder::UnitNearest(double unit) const {
  unit = Clamp(unit, kSmallestUnit, FLT_MAX);
  switch (format_.field) {
    case IntScaleField::kLog8: {
      const int magnitude = IntCeilMagnitude(
          units_.window(), static_cast<float>(unit * kIntHalfThird));
      return magnitude > 64 && units_.unit(magnitude) > unit ? magnitude - 1
                                                             : magnitude;
    }
    case IntScaleField::kBFloat16:
      return FloatToBFloat16(static_cast<float>(unit));
    default:
      return FloatBits(static_cast<float>(unit));
  }
}

bool IntBlockCoder::IsFine(uint32_t scale) const {
  return format_.field != IntScaleField::kLog8 ||
         static_cast<int>(scale & kIntScaleMagnitude) <= kIntFineMagnitudes;
}

bool IntBlockCoder::IsNear(uint32_t scale, double unit) const {
  return IsFine(scale) && UnitOf(scale) < 1.25 * unit;
}

double IntBlockCoder::UnitOf(uint32_t scale) const {
  scale &= ~FlagBit();
  switch (format_.field) {
    case IntScaleField::kLog8:
      return units_.unit(scale);
    case IntScaleField::kBFloat16:
      return BFloat16ToFloat(static_cast<uint16_t>(scale));
    default:
      return BitsToFloat(scale);
  }
}

IntBlockCoder::Grid IntBlockCoder::GridOf(const IntBlockFields& fields) const {
  const int bits = format_.format.bits;
  const double unit = UnitOf(fields.scale);
  const double high = (1 << bits) - 1;
  if (format_.is_affine) {
    return {BFloat16ToFloat(fields.origin), unit, 0, high};
  }
  const bool has_flag = (fields.scale & FlagBit()) != 0;
  if (bits == 1 || (bits == 2 && !has_flag)) {
    return {-high * unit, 2 * unit, 0, high};
  }
  const double half_range = 1 << (bits - 1);
  const double step = bits > 2 && has_flag ? -unit : unit;
  const double low = bits == 2 || !format_.format.searches_clip ? 1 : 0;
  return {-half_range * step, step, low, high};
}

// Adds a unit that is no less than `unit` and the next `length` - 1 below it:
// of a logarithmic field by thirds of an octave, of others by eighths of it.
void IntBlockCoder::AddRun(double unit, int length, uint32_t flag,
                           Candidates* list) const {
  if (format_.field != IntScaleField::kLog8) {
    for (int i = 0; i < length; ++i) {
      list->Add(UnitAtLeast(unit * (8 - i) / 8) | flag);
    }
    return;
  }
  int magnitude = static_cast<int>(UnitAtLeast(unit));
  for (int i = 0; i < length; ++i) {
    list->Add(static_cast<uint32_t>(magnitude) | flag);
    const int lower = IntLowerMagnitude(magnitude);
    if (lower == magnitude) return;
    magnitude = lower;
  }
}

void IntBlockCoder::ListSymmetric(const Summary& summary,
                                  absl::Span<const float> values,
                                  Candidates* list) const {
  const IntFormat& format = format_.format;
  const int bits = format.bits;
  const double block_max = summary.magnitude();
  const double half_range = 1 << (bits - 1);
  if (!format.searches_clip) {
    const double levels = bits == 1 ? 1 : bits == 2 ? 3 : half_range - 1;
    return list->Add(UnitAtLeast(block_max / levels));
  }
  const double count = static_cast<double>(values.size());
  const auto magnitude = [&](size_t i) { return std::fabs(double{values[i]}); };
  const auto square = [&](size_t i) { return double{values[i]} * values[i]; };
  const uint32_t side = bits > 2 && -summary.min < summary.max ? FlagBit() : 0u;
  if (format.model != IntClipModel::kNone) {
    const double spread = format.model == IntClipModel::kGauss
                              ? std::sqrt(Sum(values.size(), square) / count)
                              : Sum(values.size(), magnitude) / count;
    const double clip = spread * IntOptimalClip(format.model, bits);
    const double target =
        std::min(clip, block_max) / (bits <= 2 ? 2 * half_range : half_range);
    const uint32_t scale = UnitNearest(target);
    if (bits == 1 || IsNear(scale, target)) return list->Add(scale | side);
  }
  if (bits == 1) {
    return list->Add(UnitNearest(Sum(values.size(), magnitude) / count));
  }
  const bool is_log = format_.field == IntScaleField::kLog8;
  if (bits == 2) {
    AddRun(block_max, is_log ? 5 : 6, FlagBit(), list);
    // As in int_scale.h.
    if (IsFine((*list)[0].scale)) AddRun(block_max / 3, 6, 0, list);
    return;
  }
  const int length = is_log ? (bits == 3 ? 3 : 2) : (bits <= 4 ? 6 : 3);
  AddRun(block_max / half_range, length, side, list);
}

void IntBlockCoder::ListAffine(const Summary& summary,
                               absl::Span<const float> values,
                               Candidates* list) const {
  const IntFormat& format = format_.format;
  const double steps = (1 << format.bits) - 1;
  const double min = summary.min;
  const double max = summary.max;
  if (format.model != IntClipModel::kNone) {
    const double count = static_cast<double>(values.size());
    const double mean =
        Sum(values.size(), [&](size_t i) { return double{values[i]}; }) / count;
    const double spread =
        format.model == IntClipModel::kGauss
            ? std::sqrt(Sum(values.size(),
                            [&](size_t i) {
                              return (values[i] - mean) * (values[i] - mean);
                            }) /
                        count)
            : Sum(values.size(), [&](size_t i) {
                return std::fabs(values[i] - mean);
              }) / count;
    // The paper's levels are the middles of 2^bits parts of -alpha .. alpha.
    const double reach = spread * IntOptimalClip(format.model, format.bits) *
                         steps / (steps + 1);
    const uint16_t origin = NearestOrigin(std::max(min, mean - reach));
    const double target =
        (std::min(max, mean + reach) - BFloat16ToFloat(origin)) / steps;
    const uint32_t scale = UnitNearest(target);
    if (IsNear(scale, target)) return list->Add(scale, origin);
  }
  const uint16_t covering = BFloat16AtMost(min);
  const double full = (max - BFloat16ToFloat(covering)) / steps;
  list->Add(UnitAtLeast(full), covering);
  if (!format.searches_clip) return;
  Candidates smaller;
  AddRun(full, format.bits <= 4 ? 6 : 3, 0, &smaller);
  for (int i = 1; i < smaller.size(); ++i) {
    const uint32_t scale = smaller[i].scale;
    const double span = UnitOf(scale) * steps;
    list->Add(scale, NearestOrigin(min));
    list->Add(scale, NearestOrigin((min + max - span) / 2));
    list->Add(scale, NearestOrigin(max - span));
  }
}

IntBlockFields IntBlockCoder::Best(const Candidates& list,
                                   absl::Span<const float> values) const {
  int best = 0;
  double best_error = 0;
  for (int i = 0; i < list.size() && list.size() > 1; ++i) {
    const Grid grid = GridOf(list[i]);
    const double error =
        DoubleError(values, {grid.base, 1 / grid.step, grid.low, grid.high}) *
        grid.step * grid.step;
    if (i == 0 || error < best_error) {
      best = i;
      best_error = error;
    }
  }
  return list[best];
}

IntBlockFields IntBlockCoder::Encode(absl::Span<const float> values,
                                     const RandomKey& key, int64_t index,
                                     uint8_t* packed) const {
  const IntFormat& format = format_.format;
  const size_t count = values.size();
  const int64_t code_bytes = IntBlockCodeBytes(format_, count);
  std::memset(packed, 0, code_bytes);
  const ValueRange range = RangeOfValues(values);
  if (!range.all_finite) {
    return {format_.field == IntScaleField::kLog8       ? kIntScaleNonFinite
            : format_.field == IntScaleField::kBFloat16 ? uint32_t{kBFloat16NaN}
                                                        : kFloat32NaN,
            0};
  }
  const Summary summary = {range.low, range.high};
  if (format_.is_affine && summary.min == summary.max) {
    const uint32_t bits = FloatBits(values[0]);
    packed[0] = static_cast<uint8_t>(bits);
    packed[1] = static_cast<uint8_t>(bits >> 8);
    return {0, static_cast<uint16_t>(bits >> 16)};
  }
  if (summary.magnitude() == 0) return {};
  Candidates list;
  if (format_.is_affine) {
    ListAffine(summary, values, &list);
  } else {
    ListSymmetric(summary, values, &list);
  }
  const IntBlockFields fields = Best(list, values);
  const Grid grid = GridOf(fields);
  const DoubleSteps steps = {grid.base, 1 / grid.step, grid.low, grid.high};
  alignas(64) uint8_t codes[kIntMaxBlock + 8];
  if (format.is_stochastic) {
    alignas(64) uint32_t words[64];
    const int64_t first_group = index * ((format.block + 63) / 64);
    for (size_t begin = 0; begin < count; begin += 64) {
      FillPhiloxWords(
          key, static_cast<uint32_t>(16 * (first_group + begin / 64)), words);
      DoubleStochasticCodes(values.subspan(begin, 64), steps, words,
                            codes + begin);
    }
  } else {
    DoubleCodes(values, steps, codes);
  }
  PackCodes(format.bits, codes, count, packed, packed + code_bytes);
  return fields;
}

void IntBlockCoder::Decode(const IntBlockFields& fields, const uint8_t* packed,
                           absl::Span<float> out) const {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const uint32_t magnitude = fields.scale & ~FlagBit();
  if (magnitude == 0) {
    const uint32_t bits = format_.is_affine
                              ? uint32_t{fields.origin} << 16 |
                                    uint32_t{packed[1]} << 8 | packed[0]
                              : 0u;
    const bool is_finite = (bits & 0x7FFFFFFFu) < kInfinityBits;
    std::fill(out.begin(), out.end(), is_finite ? BitsToFloat(bits) : nan);
    return;
  }
  const bool is_unit = format_.field == IntScaleField::kLog8
                           ? magnitude != kIntScaleNonFinite
                           : UnitOf(fields.scale) <= double{FLT_MAX};
  const Grid grid = is_unit ? GridOf(fields) : Grid{0, 0, 0, 0};
  // Written so that a NaN fails.
  if (!is_unit || !(std::fabs(grid.base) <= 256 * double{FLT_MAX})) {
    std::fill(out.begin(), out.end(), nan);
    return;
  }
  alignas(64) uint8_t codes[kIntMaxBlock + 8];
  UnpackCodes(format_.format.bits, packed,
              packed + IntBlockCodeBytes(format_, out.size()), out.size(),
              codes);
  DoubleValues(codes, grid.base, grid.step, out);
}

bool IntBlockCoder::UnusedBitsAreZero(const IntBlockFields& fields,
                                      const uint8_t* packed,
                                      int64_t count) const {
  const bool is_constant =
      format_.is_affine && (fields.scale & ~FlagBit()) == 0;
  const int64_t used = is_constant ? 16 : count * format_.format.bits;
  const int64_t bytes = IntBlockCodeBytes(format_, count);
  uint32_t unused = used % 8 == 0 ? 0u : packed[used / 8] >> (used % 8);
  for (int64_t i = (used + 7) / 8; i < bytes; ++i) unused |= packed[i];
  return unused == 0;
}

}  // namespace deltapipe
