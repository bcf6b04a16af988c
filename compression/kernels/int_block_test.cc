#include "compression/kernels/int_block.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "compression/kernels/int_quantize.h"
#include "compression/kernels/reference/int_quantize.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr RandomKey kKey{11, 2, 3, 4, 1};
constexpr int kWindow = 110;  // fine scales from 2^-16 to 2^5

struct Encoded {
  IntBlockFields fields;
  std::vector<uint8_t> packed;
};

Encoded Encode(const IntBlockFormat& format, const std::vector<float>& values,
               int64_t index = 0) {
  Encoded encoded;
  encoded.packed.assign(IntBlockCodeBytes(format, values.size()), 0xAA);
  encoded.fields = IntBlockCoder(format, kWindow)
                       .Encode(values, kKey, index, encoded.packed.data());
  return encoded;
}

std::vector<float> Decode(const IntBlockFormat& format, const Encoded& encoded,
                          size_t count) {
  std::vector<float> out(count);
  IntBlockCoder(format, kWindow)
      .Decode(encoded.fields, encoded.packed.data(), absl::MakeSpan(out));
  return out;
}

std::vector<float> NormalValues(size_t count, uint32_t seed, double scale = 1,
                                double center = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(center + scale * normal(generator));
  }
  return values;
}

std::vector<int> Codes(const IntBlockFormat& format, const Encoded& encoded,
                       size_t count) {
  std::vector<int> codes(count, 0);
  const int bits = format.format.bits;
  for (size_t bit = 0; bit < count * bits; ++bit) {
    codes[bit / bits] |= (encoded.packed[bit / 8] >> (bit % 8) & 1)
                         << (bit % bits);
  }
  return codes;
}

double SquaredError(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
  }
  return sum;
}

std::vector<IntBlockFormat> AllFormats() {
  std::vector<IntBlockFormat> formats;
  for (int bits = 1; bits <= 8; ++bits) {
    for (const IntFormat& format :
         {IntFormat{bits, 64, false, true}, IntFormat{bits, 64, false, false},
          IntFormat{bits, 64, true, false},
          IntFormat{bits, 64, false, true, IntClipModel::kLaplace},
          IntFormat{bits, 64, false, true, IntClipModel::kGauss}}) {
      for (const bool is_affine : {false, true}) {
        for (const IntScaleField field :
             {IntScaleField::kLog8, IntScaleField::kBFloat16,
              IntScaleField::kFloat32}) {
          formats.push_back({format, is_affine, field});
        }
      }
    }
  }
  return formats;
}

std::string FormatName(const IntBlockFormat& format) {
  return absl::StrCat(
      format.format.bits, " bits, stochastic ", format.format.is_stochastic,
      ", clips ", format.format.searches_clip, ", model ",
      static_cast<int>(format.format.model), ", affine ", format.is_affine,
      ", field ", static_cast<int>(format.field));
}

// One block of the vector kernels' payload.
TEST(IntBlockTest, SymmetricBlocksWithLogarithmicScalesAreThoseOfIntQuantize) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (const IntFormat& format :
         {IntFormat{bits, 64, false, true}, IntFormat{bits, 64, false, false},
          IntFormat{bits, 64, true, false},
          IntFormat{bits, 64, false, true, IntClipModel::kLaplace},
          IntFormat{bits, 64, false, true, IntClipModel::kGauss}}) {
      for (uint32_t seed = 1; seed <= 50; ++seed) {
        const IntBlockFormat block_format = {format};
        SCOPED_TRACE(absl::StrCat(FormatName(block_format), ", seed ", seed));
        const std::vector<float> values = NormalValues(64, seed);
        std::vector<uint8_t> payload(IntPayloadBytes(format, 64));
        reference::IntQuantize(format, values, kKey, payload.data());
        IntWindowChooser chooser(block_format);
        chooser.Add(values);
        ASSERT_EQ(chooser.Window(), payload[0]);

        std::vector<uint8_t> packed(8 * bits);
        const IntBlockFields fields =
            IntBlockCoder(block_format, payload[0])
                .Encode(values, kKey, 0, packed.data());

        EXPECT_EQ(fields.scale, payload[1]);
        EXPECT_EQ(packed,
                  std::vector<uint8_t>(payload.begin() + 2, payload.end()));
      }
    }
  }
}

// The header's formula, in plain words.
TEST(IntBlockTest, AffineValuesAreOriginPlusCodeTimesTheStoredUnit) {
  const std::vector<float> values = NormalValues(64, 5, 0.3, 2);
  for (const IntBlockFormat& format : AllFormats()) {
    if (!format.is_affine) continue;
    SCOPED_TRACE(FormatName(format));
    const Encoded encoded = Encode(format, values);
    const double origin = BitsToFloat(uint32_t{encoded.fields.origin} << 16);
    const double unit =
        format.field == IntScaleField::kLog8
            ? IntUnit(kWindow, static_cast<int>(encoded.fields.scale))
        : format.field == IntScaleField::kBFloat16
            ? BitsToFloat(encoded.fields.scale << 16)
            : BitsToFloat(encoded.fields.scale);
    const std::vector<int> codes = Codes(format, encoded, values.size());

    const std::vector<float> out = Decode(format, encoded, values.size());

    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(out[i], static_cast<float>(origin + codes[i] * unit));
    }
  }
}

// No level that another value took is nearer.
TEST(IntBlockTest, NearestRoundingTakesTheNearestLevel) {
  const std::vector<float> values = NormalValues(61, 6, 3, -1);
  for (const IntBlockFormat& format : AllFormats()) {
    if (format.format.is_stochastic) continue;
    SCOPED_TRACE(FormatName(format));
    const Encoded encoded = Encode(format, values);
    const std::vector<float> out = Decode(format, encoded, values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      for (const float level : out) {
        ASSERT_LE(std::fabs(values[i] - out[i]),
                  std::fabs(values[i] - level) + 1e-6)
            << i;
      }
    }
  }
}

TEST(IntBlockTest, LevelsThatMayNotClipCoverTheBlock) {
  for (const IntBlockFormat& format : AllFormats()) {
    if (format.format.searches_clip) continue;
    SCOPED_TRACE(FormatName(format));
    for (uint32_t seed = 1; seed <= 20; ++seed) {
      const std::vector<float> values = NormalValues(64, seed, 1, seed - 10.0);
      const auto [min, max] = std::minmax_element(values.begin(), values.end());
      Encoded ends = Encode(format, values);

      std::fill(ends.packed.begin(), ends.packed.end(), 0xFF);
      const float top = Decode(format, ends, 1)[0];
      // The lowest code of 2 bits and more is unused where nothing is clipped.
      const int lowest = format.is_affine || format.format.bits <= 2 ? 0 : 1;
      std::fill(ends.packed.begin(), ends.packed.end(), 0x00);
      ends.packed[0] = static_cast<uint8_t>(lowest);
      const float bottom = Decode(format, ends, 1)[0];

      EXPECT_LE(bottom, *min);
      EXPECT_GE(top, *max);
    }
  }
}

TEST(IntBlockTest, SearchedLevelsAreNoWorseThanCoveringOnes) {
  std::mt19937 generator(9);
  std::student_t_distribution<double> heavy(3);
  double searched_sum = 0, covering_sum = 0;
  for (IntBlockFormat format : AllFormats()) {
    if (!format.is_affine || !format.format.searches_clip ||
        format.format.model != IntClipModel::kNone) {
      continue;
    }
    SCOPED_TRACE(FormatName(format));
    std::vector<float> values(64);
    for (float& value : values) value = static_cast<float>(heavy(generator));
    const double searched =
        SquaredError(values, Decode(format, Encode(format, values), 64));
    format.format.searches_clip = false;
    const double covering =
        SquaredError(values, Decode(format, Encode(format, values), 64));

    EXPECT_LE(searched, covering * (1 + 1e-6));
    searched_sum += searched;
    covering_sum += covering;
  }
  EXPECT_LT(searched_sum, 0.8 * covering_sum);
}

TEST(IntBlockTest, AnyFieldsAndBytesDecodeToFiniteValuesOrNaN) {
  std::mt19937 generator(10);
  for (const IntBlockFormat& format : AllFormats()) {
    SCOPED_TRACE(FormatName(format));
    for (int i = 0; i < 200; ++i) {
      Encoded encoded;
      const uint32_t mask = format.field == IntScaleField::kLog8 ? 0xFFu
                            : format.field == IntScaleField::kBFloat16
                                ? 0xFFFFu
                                : 0xFFFFFFFFu;
      encoded.fields.scale = static_cast<uint32_t>(generator()) & mask;
      encoded.fields.origin = static_cast<uint16_t>(generator());
      encoded.packed.resize(IntBlockCodeBytes(format, 33));
      for (uint8_t& byte : encoded.packed) {
        byte = static_cast<uint8_t>(generator());
      }

      for (const float value : Decode(format, encoded, 33)) {
        ASSERT_FALSE(std::isinf(value));
      }
    }
  }
}

TEST(IntBlockTest, BlocksThatAreNotFiniteDecodeToNaN) {
  for (const IntBlockFormat& format : AllFormats()) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            -std::numeric_limits<float>::infinity()}) {
      std::vector<float> values = NormalValues(64, 11);
      values[40] = bad;

      for (const float value : Decode(format, Encode(format, values), 64)) {
        ASSERT_TRUE(std::isnan(value)) << FormatName(format);
      }
    }
  }
}

TEST(IntBlockTest, UnusedBitsOfAShortBlockAreZero) {
  for (const IntBlockFormat& format : AllFormats()) {
    SCOPED_TRACE(FormatName(format));
    const IntBlockCoder coder(format, kWindow);
    for (const size_t count : {1, 3, 13}) {
      for (const bool is_constant : {false, true}) {
        std::vector<float> values = NormalValues(count, 12);
        if (is_constant) values.assign(count, 0.7f);
        Encoded encoded = Encode(format, values);
        EXPECT_TRUE(coder.UnusedBitsAreZero(encoded.fields,
                                            encoded.packed.data(), count));
        const bool keeps_value =
            format.is_affine && (is_constant || count == 1);
        const size_t used = keeps_value ? 16 : count * format.format.bits;
        if (used == 8 * encoded.packed.size()) continue;

        encoded.packed.back() |= 0x80;

        EXPECT_FALSE(coder.UnusedBitsAreZero(encoded.fields,
                                             encoded.packed.data(), count));
      }
    }
  }
}

}  // namespace
}  // namespace deltapipe
