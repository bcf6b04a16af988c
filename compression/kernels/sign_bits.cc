#include "compression/kernels/sign_bits.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "compression/kernels/reference/sign_bits.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/sign_bits.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

double Sum(absl::Span<const float> values) {
  return reference::SumOfSquares(values);
}
double Magnitudes(absl::Span<const float> values) {
  return reference::SumOfMagnitudes(values);
}
double AddAndSum(absl::Span<float> values, absl::Span<const float> addend) {
  return reference::AddAndSumOfSquares(values, addend);
}
void Pack(absl::Span<const float> values, absl::Span<uint8_t> bits) {
  reference::PackSigns(values, bits);
}
void PackResidual(absl::Span<float> values, float scale,
                  absl::Span<uint8_t> bits) {
  reference::PackSignsWithResidual(values, scale, bits);
}
void PackFiniteResidual(absl::Span<float> values, float scale,
                        absl::Span<uint8_t> bits) {
  reference::PackSignsWithFiniteResidual(values, scale, bits);
}
void Unpack(absl::Span<const uint8_t> bits, float scale,
            absl::Span<float> out) {
  reference::UnpackSigns(bits, scale, out);
}
void UnpackAccumulate(absl::Span<const uint8_t> bits, float scale,
                      absl::Span<float> out) {
  reference::UnpackSignsAccumulate(bits, scale, out);
}

#else
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kLanes = 16;
using FloatTag = hn::CappedTag<float, kLanes>;
using DoubleTag = hn::CappedTag<double, kLanes>;
// Elements per step: two bytes of bits.
constexpr size_t kGroup = 16;

// Writes the 2 bytes of 16 elements and calls visit(offset, values, mask of the
// lanes >= 0) for each vector.
template <class Visit>
HWY_INLINE void PackGroup(const float* HWY_RESTRICT values,
                          uint8_t* HWY_RESTRICT bits, const Visit& visit) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  const auto zero = hn::Zero(d);
  if (n >= 8) {
    for (size_t i = 0; i < kGroup; i += n) {
      const auto value = hn::LoadU(d, values + i);
      const auto mask = hn::Ge(value, zero);
      hn::StoreMaskBits(d, mask, bits + i / 8);
      visit(i, value, mask);
    }
    return;
  }
  uint8_t nibbles[kGroup];
  for (size_t i = 0; i < kGroup; i += n) {
    const auto value = hn::LoadU(d, values + i);
    const auto mask = hn::Ge(value, zero);
    hn::StoreMaskBits(d, mask, nibbles + i / n);
    visit(i, value, mask);
  }
  bits[0] = static_cast<uint8_t>((nibbles[0] & 15) | nibbles[1] << 4);
  bits[1] = static_cast<uint8_t>((nibbles[2] & 15) | nibbles[3] << 4);
}

// Of whole groups: their signs, and in their place keep(what these lose).
// Returns how many elements that were.
template <class Keep>
HWY_INLINE size_t PackResiduals(absl::Span<float> values, float scale,
                                absl::Span<uint8_t> bits, const Keep& keep) {
  const FloatTag d;
  const auto plus = hn::Set(d, scale);
  const auto minus = hn::Set(d, -scale);
  const size_t whole = values.size() / kGroup * kGroup;
  for (size_t i = 0; i < whole; i += kGroup) {
    float* const group = values.data() + i;
    PackGroup(group, bits.data() + i / 8,
              [&](size_t offset, auto value, auto mask) HWY_ATTR {
                const auto lost =
                    hn::Sub(value, hn::IfThenElse(mask, plus, minus));
                hn::StoreU(keep(lost), d, group + offset);
              });
  }
  return whole;
}

// Calls visit(offset, mask) for the vectors of 16 elements.
template <class Visit>
HWY_INLINE void UnpackGroup(const uint8_t* HWY_RESTRICT bits,
                            const Visit& visit) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  // LoadMaskBits may read 8 bytes.
  uint8_t bytes[16] = {};
  for (size_t i = 0; i < kGroup; i += n) {
    if (n >= 8) {
      bytes[0] = bits[i / 8];
      if (n == 16) bytes[1] = bits[1];
    } else {
      bytes[0] = static_cast<uint8_t>(bits[i / 8] >> (i % 8) & 15);
    }
    visit(i, hn::LoadMaskBits(d, bytes));
  }
}

// What is summed, for vectors and for single values.
struct Square {
  template <class D, class V>
  static HWY_INLINE V Of(D /*d*/, V value) {
    return hn::Mul(value, value);
  }
  static double Of(double value) { return value * value; }
};
struct Magnitude {
  template <class D, class V>
  static HWY_INLINE V Of(D /*d*/, V value) {
    return hn::Abs(value);
  }
  static double Of(double value) { return std::fabs(value); }
};

// Adds the terms of `count` values (a multiple of 16) to the 16 lanes.
// Adds the terms of `count` values (a multiple of 16) to the 16 lanes, each in
// a chain of additions of its own that does not wait for the others.
template <class Term>
void AddTerms(const float* HWY_RESTRICT values, size_t count,
              double* HWY_RESTRICT lanes) {
  const DoubleTag d;
  const hn::Rebind<float, DoubleTag> df;
  constexpr size_t n = hn::MaxLanes(DoubleTag());
  constexpr size_t kVectors = kLanes / n;
  hn::Vec<DoubleTag> sums[kVectors];
  for (size_t v = 0; v < kVectors; ++v) sums[v] = hn::LoadU(d, lanes + v * n);
  for (size_t i = 0; i < count; i += kLanes) {
    for (size_t v = 0; v < kVectors; ++v) {
      const auto value = hn::PromoteTo(d, hn::LoadU(df, values + i + v * n));
      sums[v] = hn::Add(sums[v], Term::Of(d, value));
    }
  }
  for (size_t v = 0; v < kVectors; ++v) hn::StoreU(sums[v], d, lanes + v * n);
}

// Chunks stay in the first-level cache between what prepares and AddTerms.
constexpr size_t kChunk = 2048;

template <class Term, class Prepare>
double SumChunks(const float* values, size_t size, const Prepare& prepare) {
  std::array<double, kLanes> lanes{};
  const size_t whole = size / kLanes * kLanes;
  for (size_t begin = 0; begin < whole; begin += kChunk) {
    const size_t count = std::min(kChunk, whole - begin);
    prepare(begin, count);
    AddTerms<Term>(values + begin, count, lanes.data());
  }
  prepare(whole, size - whole);
  for (size_t i = whole; i < size; ++i) {
    lanes[i - whole] += Term::Of(static_cast<double>(values[i]));
  }
  for (size_t width = kLanes / 2; width >= 1; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

}  // namespace

double Sum(absl::Span<const float> values) {
  return SumChunks<Square>(values.data(), values.size(), [](size_t, size_t) {});
}

double Magnitudes(absl::Span<const float> values) {
  return SumChunks<Magnitude>(values.data(), values.size(),
                              [](size_t, size_t) {});
}

double AddAndSum(absl::Span<float> values, absl::Span<const float> addend) {
  const FloatTag d;
  const size_t n = hn::Lanes(d);
  const auto add = [&](size_t begin, size_t count) HWY_ATTR {
    float* const sums = values.data() + begin;
    const float* const addends = addend.data() + begin;
    size_t i = 0;
    for (; i + n <= count; i += n) {
      hn::StoreU(hn::Add(hn::LoadU(d, sums + i), hn::LoadU(d, addends + i)), d,
                 sums + i);
    }
    for (; i < count; ++i) sums[i] += addends[i];
  };
  return SumChunks<Square>(values.data(), values.size(), add);
}

void Pack(absl::Span<const float> values, absl::Span<uint8_t> bits) {
  const size_t whole = values.size() / kGroup * kGroup;
  for (size_t i = 0; i < whole; i += kGroup) {
    PackGroup(values.data() + i, bits.data() + i / 8,
              [](size_t, auto, auto) HWY_ATTR {});
  }
  reference::PackSigns(values.subspan(whole), bits.subspan(whole / 8));
}

void PackResidual(absl::Span<float> values, float scale,
                  absl::Span<uint8_t> bits) {
  const size_t whole = PackResiduals(
      values, scale, bits, [](auto residual) HWY_ATTR { return residual; });
  reference::PackSignsWithResidual(values.subspan(whole), scale,
                                   bits.subspan(whole / 8));
}

void PackFiniteResidual(absl::Span<float> values, float scale,
                        absl::Span<uint8_t> bits) {
  const size_t whole =
      PackResiduals(values, scale, bits, [](auto residual) HWY_ATTR {
        return hn::IfThenElseZero(hn::IsFinite(residual), residual);
      });
  reference::PackSignsWithFiniteResidual(values.subspan(whole), scale,
                                         bits.subspan(whole / 8));
}

void Unpack(absl::Span<const uint8_t> bits, float scale,
            absl::Span<float> out) {
  const FloatTag d;
  const auto plus = hn::Set(d, scale);
  const auto minus = hn::Set(d, -scale);
  const size_t whole = out.size() / kGroup * kGroup;
  for (size_t i = 0; i < whole; i += kGroup) {
    float* const group = out.data() + i;
    UnpackGroup(bits.data() + i / 8, [&](size_t offset, auto mask) HWY_ATTR {
      hn::StoreU(hn::IfThenElse(mask, plus, minus), d, group + offset);
    });
  }
  reference::UnpackSigns(bits.subspan(whole / 8), scale, out.subspan(whole));
}

void UnpackAccumulate(absl::Span<const uint8_t> bits, float scale,
                      absl::Span<float> out) {
  const FloatTag d;
  const auto plus = hn::Set(d, scale);
  const auto minus = hn::Set(d, -scale);
  const size_t whole = out.size() / kGroup * kGroup;
  for (size_t i = 0; i < whole; i += kGroup) {
    float* const group = out.data() + i;
    UnpackGroup(bits.data() + i / 8, [&](size_t offset, auto mask) HWY_ATTR {
      hn::StoreU(hn::Add(hn::LoadU(d, group + offset),
                         hn::IfThenElse(mask, plus, minus)),
                 d, group + offset);
    });
  }
  reference::UnpackSignsAccumulate(bits.subspan(whole / 8), scale,
                                   out.subspan(whole));
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Sum);
HWY_EXPORT(Magnitudes);
HWY_EXPORT(AddAndSum);
HWY_EXPORT(Pack);
HWY_EXPORT(PackResidual);
HWY_EXPORT(PackFiniteResidual);
HWY_EXPORT(Unpack);
HWY_EXPORT(UnpackAccumulate);

double SumOfSquares(absl::Span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(Sum)(values);
}

double SumOfMagnitudes(absl::Span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(Magnitudes)(values);
}

double AddAndSumOfSquares(absl::Span<float> values,
                          absl::Span<const float> addend) {
  return HWY_DYNAMIC_DISPATCH(AddAndSum)(values, addend);
}

void PackSigns(absl::Span<const float> values, absl::Span<uint8_t> bits) {
  HWY_DYNAMIC_DISPATCH(Pack)(values, bits);
}

void PackSignsWithResidual(absl::Span<float> values, float scale,
                           absl::Span<uint8_t> bits) {
  HWY_DYNAMIC_DISPATCH(PackResidual)(values, scale, bits);
}

void PackSignsWithFiniteResidual(absl::Span<float> values, float scale,
                                 absl::Span<uint8_t> bits) {
  HWY_DYNAMIC_DISPATCH(PackFiniteResidual)(values, scale, bits);
}

void UnpackSigns(absl::Span<const uint8_t> bits, float scale,
                 absl::Span<float> out) {
  HWY_DYNAMIC_DISPATCH(Unpack)(bits, scale, out);
}

void UnpackSignsAccumulate(absl::Span<const uint8_t> bits, float scale,
                           absl::Span<float> out) {
  HWY_DYNAMIC_DISPATCH(UnpackAccumulate)(bits, scale, out);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
