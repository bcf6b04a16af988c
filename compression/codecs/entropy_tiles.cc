#include "compression/codecs/entropy_tiles.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/bit_packing.h"
#include "compression/kernels/directed_bfloat16.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

constexpr int kFieldBytes = 3;  // scale, origin
constexpr int kLowBits = 3;
constexpr int kHighBits = 4;
constexpr int kMaxTile = 128;
constexpr int kMaxOrigin = 127;

// To nearest, ties to even, for |value| < 2^51.
double RoundHalfEven(double value) {
  constexpr double kShift = 0x1.8p52;
  return (value + kShift) - kShift;
}

// log2 of a positive normal number to 1e-11, the same bits on any machine; a
// finite number for 0.
double Log2(double value) {
  constexpr uint64_t kOne = uint64_t{1023} << 52;
  constexpr uint64_t kRootOfHalf = 0x3FE6A09E667F3BCD;
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  // The exponent of a mantissa within sqrt(1/2) .. sqrt(2).
  const int64_t exponent =
      static_cast<int64_t>(bits + (kOne - kRootOfHalf)) >> 52;
  bits -= static_cast<uint64_t>(exponent - 1023) << 52;
  double mantissa;
  std::memcpy(&mantissa, &bits, sizeof(mantissa));
  // log m = 2 (z + z^3 / 3 + ...), |z| < 0.172.
  const double z = (mantissa - 1) / (mantissa + 1);
  const double square = z * z;
  double sum = 0;
  for (int k = 13; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
  return static_cast<double>(static_cast<int32_t>(exponent) - 1023) +
         2.8853900817779268 * z * sum;
}

double EntropyOf(absl::Span<const float> tile) {
  double total = 0;
  for (const float value : tile) total += std::fabs(value);
  if (!(total > 0) || !std::isfinite(total)) return 0;
  double terms[kMaxTile];
  for (size_t i = 0; i < tile.size(); ++i) {
    const double p = std::fabs(tile[i]) / total;
    terms[i] = p * Log2(p);
  }
  double entropy = 0;
  for (size_t i = 0; i < tile.size(); ++i) entropy -= terms[i];
  return entropy;
}

struct RowLayout {
  RowLayout(int64_t count, int64_t tile, double share)
      : num_tiles(count / tile),
        num_high(static_cast<int64_t>(
            std::floor(share * static_cast<double>(num_tiles) + 0.5))),
        rest(count % tile) {
    bytes = (num_tiles + 7) / 8 + num_tiles * (kFieldBytes + tile / 8 * 3) +
            num_high * (tile / 8);
    if (rest > 0) bytes += kFieldBytes + (rest * kHighBits + 7) / 8;
  }

  int64_t num_tiles;  // full ones
  int64_t num_high;   // of them with 4 bits
  int64_t rest;       // values of the shorter one
  int64_t bytes;
};

bool GetBit(const uint8_t* bits, int64_t index) {
  return (bits[index / 8] >> (index % 8) & 1) != 0;
}

uint8_t* EncodeTile(absl::Span<const float> tile, int bits, uint8_t* at) {
  double low = tile[0], high = tile[0];
  bool all_finite = true;
  for (const float value : tile) {
    all_finite &= std::isfinite(value);
    low = std::min<double>(low, value);
    high = std::max<double>(high, value);
  }
  const int last_code = (1 << bits) - 1;
  const uint16_t scale =
      all_finite ? BFloat16AtLeast(std::max((high - low) / last_code,
                                            std::fabs(low) / kMaxOrigin))
                 : kBFloat16NaN;
  const double step = BFloat16ToFloat(scale);
  const double inverse = step > 0 ? 1 / step : 0;
  const double origin = all_finite ? RoundHalfEven(low * inverse) : 0;
  std::memcpy(at, &scale, sizeof(scale));
  at[2] = static_cast<uint8_t>(static_cast<int8_t>(origin));
  at += kFieldBytes;
  uint8_t codes[kMaxTile] = {};
  for (size_t i = 0; i < tile.size() && all_finite; ++i) {
    const double code = RoundHalfEven(tile[i] * inverse) - origin;
    codes[i] = static_cast<uint8_t>(
        std::min(std::max(code, 0.0), static_cast<double>(last_code)));
  }
  uint8_t* const end = at + (tile.size() * bits + 7) / 8;
  PackCodes(bits, codes, tile.size(), at, end);
  return end;
}

class EntropyTilesCodec final : public Codec {
 public:
  EntropyTilesCodec(std::string text, double share, int64_t tile, int64_t row)
      : text_(std::move(text)), share_(share), tile_(tile), row_(row) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    if (num_elements == 0) return 0;
    const int64_t row = RowElements(num_elements);
    return num_elements / row * LayoutOf(row).bytes +
           LayoutOf(num_elements % row).bytes;
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& /*key*/,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    const size_t row_elements = RowElements(in.size());
    uint8_t* at = out.data();
    while (!in.empty()) {
      const auto row = in.first(std::min(in.size(), row_elements));
      at = EncodeRow(row, at);
      in.remove_prefix(row.size());
    }
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, out.size(), MaxPayloadBytes(out.size()), payload.size()));
    const size_t row_elements = RowElements(out.size());
    const uint8_t* at = payload.data();
    while (!out.empty()) {
      const auto row = out.first(std::min(out.size(), row_elements));
      DP_RETURN_IF_ERROR(DecodeRow(at, row));
      at += LayoutOf(row.size()).bytes;
      out.remove_prefix(row.size());
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.bits_per_element = kLowBits + share_ + 25.0 / tile_;
    if (row_ > 0) {
      traits.bits_per_element = 8.0 *
                                static_cast<double>(LayoutOf(row_).bytes) /
                                static_cast<double>(row_);
    }
    return traits;
  }

  // Half a step: of a 7th of a range that is at most twice the largest value.
  double ErrorBound(double block_max) const override {
    return block_max / 7 * (1 + 0x1p-6) + 0x1p-130;
  }

 private:
  RowLayout LayoutOf(int64_t count) const {
    return RowLayout(count, tile_, share_);
  }
  int64_t RowElements(int64_t num_elements) const {
    return row_ == 0 ? num_elements : row_;
  }

  uint8_t* EncodeRow(absl::Span<const float> row, uint8_t* at) const {
    const RowLayout layout = LayoutOf(row.size());
    uint8_t* const is_high = at;
    at += (layout.num_tiles + 7) / 8;
    std::fill(is_high, at, uint8_t{0});
    ThreadScratch<double> entropies_scratch;
    std::vector<double>& entropies = *entropies_scratch;
    entropies.resize(layout.num_tiles);
    for (int64_t i = 0; i < layout.num_tiles; ++i) {
      entropies[i] = EntropyOf(row.subspan(i * tile_, tile_));
    }
    ThreadScratch<int64_t> order_scratch;
    std::vector<int64_t>& order = *order_scratch;
    order.resize(layout.num_tiles);
    std::iota(order.begin(), order.end(), 0);
    std::nth_element(order.begin(), order.begin() + layout.num_high,
                     order.end(), [&](int64_t a, int64_t b) {
                       return entropies[a] != entropies[b]
                                  ? entropies[a] > entropies[b]
                                  : a < b;
                     });
    for (int64_t i = 0; i < layout.num_high; ++i) {
      is_high[order[i] / 8] |= static_cast<uint8_t>(1 << (order[i] % 8));
    }
    for (int64_t i = 0; i < layout.num_tiles; ++i) {
      at = EncodeTile(row.subspan(i * tile_, tile_),
                      GetBit(is_high, i) ? kHighBits : kLowBits, at);
    }
    if (layout.rest > 0) {
      at = EncodeTile(row.subspan(layout.num_tiles * tile_), kHighBits, at);
    }
    return at;
  }

  absl::Status DecodeRow(const uint8_t* at, absl::Span<float> row) const {
    const RowLayout layout = LayoutOf(row.size());
    const uint8_t* const is_high = at;
    at += (layout.num_tiles + 7) / 8;
    int64_t num_high = 0;
    for (const uint8_t* byte = is_high; byte != at; ++byte) {
      num_high += __builtin_popcount(*byte);
    }
    // With the right number of them the tiles end where the row does.
    if (num_high != layout.num_high ||
        (layout.num_tiles % 8 != 0 && at[-1] >> (layout.num_tiles % 8) != 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_, " failed: a row has ", num_high,
                       " tiles of 4 bits, expected ", layout.num_high, " of ",
                       layout.num_tiles));
    }
    for (int64_t i = 0; i < layout.num_tiles; ++i) {
      const int bits = GetBit(is_high, i) ? kHighBits : kLowBits;
      DP_RETURN_IF_ERROR(DecodeTile(at, bits, row.subspan(i * tile_, tile_)));
      at += kFieldBytes + tile_ * bits / 8;
    }
    if (layout.rest == 0) return absl::OkStatus();
    DP_RETURN_IF_ERROR(CheckUnusedBits(
        text_, layout.rest * kHighBits,
        at[kFieldBytes + (layout.rest * kHighBits + 7) / 8 - 1]));
    return DecodeTile(at, kHighBits, row.subspan(layout.num_tiles * tile_));
  }

  absl::Status DecodeTile(const uint8_t* at, int bits,
                          absl::Span<float> tile) const {
    uint16_t scale;
    std::memcpy(&scale, at, sizeof(scale));
    const double origin = static_cast<int8_t>(at[2]);
    at += kFieldBytes;
    if (scale == kBFloat16NaN) {
      std::fill(tile.begin(), tile.end(),
                std::numeric_limits<float>::quiet_NaN());
      return absl::OkStatus();
    }
    if (scale >= kBFloat16Infinity) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_, " failed: scale ",
                       absl::Hex(scale, absl::kZeroPad4),
                       ", expected a finite one >= 0, or 7fc0"));
    }
    const double step = BFloat16ToFloat(scale);
    uint8_t codes[kMaxTile];
    UnpackCodes(bits, at, at + (tile.size() * bits + 7) / 8, tile.size(),
                codes);
    for (size_t i = 0; i < tile.size(); ++i) {
      const double value = (origin + codes[i]) * step;
      tile[i] = static_cast<float>(
          std::min(std::max(value, -double{FLT_MAX}), double{FLT_MAX}));
    }
    return absl::OkStatus();
  }

  const std::string text_;
  const double share_;
  const int64_t tile_;
  const int64_t row_;
};

constexpr CodecParameter kParameters[] = {
    NumberParameter("share", "0.8", 0, 1, "of the tiles that take 4 bits"),
    ChoiceParameter("tile", "32", "8|16|32|64|128", "values of a tile"),
    ExtentParameter("row", 1, "values that are ranked together; 0: all"),
};

}  // namespace

absl::Span<const CodecParameter> EntropyTilesParameters() {
  return kParameters;
}

absl::StatusOr<std::unique_ptr<Codec>> MakeEntropyTilesCodec(
    const CodecArguments& arguments) {
  int tile = 0;
  // One of the choices: always a number.
  (void)absl::SimpleAtoi(arguments.Word("tile"), &tile);
  return std::unique_ptr<Codec>(new EntropyTilesCodec(
      arguments.CanonicalText(), arguments.Number("share"), tile,
      arguments.Integer("row")));
}

}  // namespace deltapipe
