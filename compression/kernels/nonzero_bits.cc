#include "compression/kernels/nonzero_bits.h"

#include <algorithm>
#include <cfloat>
#include <cstring>

#include "base/float_cast.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/nonzero_bits.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR

// Where lane i of a vector whose non-zero lanes are the bits of the index finds
// its value among those that were kept. The first 16 rows serve four lanes.
struct SpreadTable {
  alignas(64) int32_t lane[256][8];
};

constexpr SpreadTable MakeSpreadTable() {
  SpreadTable table{};
  for (int mask = 0; mask < 256; ++mask) {
    int kept = 0;
    for (int i = 0; i < 8; ++i) {
      // Lanes that are zero look anywhere within the four.
      table.lane[mask][i] = mask < 16 && i < 4 ? kept & 3 : kept & 7;
      kept += mask >> i & 1;
    }
  }
  return table;
}

constexpr SpreadTable kSpreadTable = MakeSpreadTable();

#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace

TakenNonzero Take(absl::Span<const float> values, uint8_t* bits, float* kept) {
  TakenNonzero taken;
  uint32_t sign_bits = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 16> d;
  const size_t n = hn::Lanes(d);
  auto seen = hn::Zero(d);
#endif
  for (size_t begin = 0; begin < values.size(); begin += 64) {
    const float* const from = values.data() + begin;
    const size_t count = std::min<size_t>(64, values.size() - begin);
    uint64_t word = 0;
    size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; i + n <= count; i += n) {
      const auto value = hn::LoadU(d, from + i);
      // Ne is false of NaN.
      const auto mask = hn::Not(hn::Eq(value, hn::Zero(d)));
      uint8_t bytes[8] = {};
      hn::StoreMaskBits(d, mask, bytes);
      uint64_t lanes;
      std::memcpy(&lanes, bytes, sizeof(lanes));
      word |= lanes << i;
      seen = hn::Or(seen, hn::IfThenElseZero(mask, value));
      taken.count += hn::CompressStore(value, mask, d, kept + taken.count);
    }
#endif
    for (; i < count; ++i) {
      const bool is_kept = from[i] != 0;
      kept[taken.count] = from[i];
      word |= uint64_t{is_kept} << i;
      sign_bits |= is_kept ? FloatBits(from[i]) : 0;
      taken.count += is_kept;
    }
    std::memcpy(bits + begin / 8, &word, (count + 7) / 8);
  }
#if HWY_TARGET != HWY_SCALAR
  alignas(64) float lanes[16];
  hn::Store(seen, d, lanes);
  for (size_t i = 0; i < n; ++i) sign_bits |= FloatBits(lanes[i]);
#endif
  taken.has_negative = sign_bits >> 31 != 0;
  return taken;
}

void KeepPositive(absl::Span<float> values) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 16> d;
  const size_t n = hn::Lanes(d);
  const auto smallest = hn::Set(d, FLT_MIN);
  for (; i + n <= values.size(); i += n) {
    const auto value = hn::LoadU(d, values.data() + i);
    // Le is false of NaN.
    const auto is_lost = hn::Le(value, hn::Zero(d));
    hn::StoreU(hn::IfThenElse(is_lost, smallest, value), d, values.data() + i);
  }
#endif
  for (; i < values.size(); ++i) {
    if (values[i] <= 0) values[i] = FLT_MIN;
  }
}

// One word, at most 64 values; returns the next of `kept`.
const float* SpreadWord(uint64_t word, size_t count, const float* kept,
                        float* out) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 8> d;
  const size_t n = hn::Lanes(d);
  for (; i + n <= count; i += n) {
    const auto lanes = static_cast<uint8_t>(word >> i & ((1u << n) - 1));
    // Reads past the last of `kept` what is not used.
    const uint8_t bytes[8] = {lanes};
    const auto spread = hn::TableLookupLanes(
        hn::LoadU(d, kept), hn::SetTableIndices(d, kSpreadTable.lane[lanes]));
    hn::StoreU(hn::IfThenElseZero(hn::LoadMaskBits(d, bytes), spread), d,
               out + i);
    kept += __builtin_popcount(lanes);
  }
#endif
  for (; i < count; ++i) {
    const auto bit = static_cast<uint32_t>(word >> i & 1);
    out[i] = BitsToFloat(FloatBits(*kept) & (0u - bit));
    kept += bit;
  }
  return kept;
}

void Spread(const uint8_t* bits, const float* kept, absl::Span<float> out) {
  for (size_t begin = 0; begin < out.size(); begin += 64) {
    const size_t count = std::min<size_t>(64, out.size() - begin);
    uint64_t word = 0;
    std::memcpy(&word, bits + begin / 8, (count + 7) / 8);
    kept = SpreadWord(word, count, kept, out.data() + begin);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Take);
HWY_EXPORT(KeepPositive);
HWY_EXPORT(Spread);

TakenNonzero TakeNonzero(absl::Span<const float> values, uint8_t* bits,
                         float* kept) {
  return HWY_DYNAMIC_DISPATCH(Take)(values, bits, kept);
}

int64_t CountNonzero(const uint8_t* bits, int64_t num_elements) {
  const int64_t num_bytes = NonzeroBytes(num_elements);
  int64_t count = 0;
  for (int64_t i = 0; i < num_bytes; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bits + i, std::min<int64_t>(8, num_bytes - i));
    count += __builtin_popcountll(word);
  }
  return count;
}

void KeepSigns(const uint8_t* negative, absl::Span<float> values) {
  if (negative == nullptr) {
    HWY_DYNAMIC_DISPATCH(KeepPositive)(values);
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t sign = (negative[i / 8] >> (i % 8) & 1u) << 31;
    const uint32_t bits = FloatBits(values[i]);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    const bool is_kept = ((bits ^ sign) >> 31 == 0) & (magnitude != 0);
    const bool is_nan = magnitude > 0x7F800000u;
    values[i] =
        BitsToFloat(is_kept | is_nan ? bits : FloatBits(FLT_MIN) | sign);
  }
}

void SpreadNonzero(const uint8_t* bits, const float* kept,
                   absl::Span<float> out) {
  HWY_DYNAMIC_DISPATCH(Spread)(bits, kept, out);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
