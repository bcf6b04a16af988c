#include "compression/kernels/nonzero_bits.h"

#include <algorithm>
#include <cstring>

#include "base/float_cast.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/nonzero_bits.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {

// One word's worth of values, up to 64; returns how many were kept.
int64_t TakeUpTo64(const float* HWY_RESTRICT values, size_t count,
                   uint64_t* word, float* HWY_RESTRICT kept) {
  uint64_t bits = 0;
  int64_t num_kept = 0;
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, 16> d;
  const size_t n = hn::Lanes(d);
  for (; i + n <= count; i += n) {
    const auto value = hn::LoadU(d, values + i);
    // Ne is false of NaN.
    const auto mask = hn::Not(hn::Eq(value, hn::Zero(d)));
    uint8_t bytes[8] = {};
    hn::StoreMaskBits(d, mask, bytes);
    uint64_t lanes;
    std::memcpy(&lanes, bytes, sizeof(lanes));
    bits |= lanes << i;
    num_kept += hn::CompressStore(value, mask, d, kept + num_kept);
  }
#endif
  for (; i < count; ++i) {
    const bool is_kept = values[i] != 0;
    kept[num_kept] = values[i];
    bits |= uint64_t{is_kept} << i;
    num_kept += is_kept;
  }
  *word = bits;
  return num_kept;
}

NonzeroCounts Take(absl::Span<const float> values, uint8_t* bits, float* kept) {
  NonzeroCounts counts;
  for (size_t begin = 0; begin < values.size(); begin += 64) {
    const size_t count = std::min<size_t>(64, values.size() - begin);
    uint64_t word;
    counts.nonzero +=
        TakeUpTo64(values.data() + begin, count, &word, kept + counts.nonzero);
    std::memcpy(bits + begin / 8, &word, (count + 7) / 8);
  }
  for (int64_t i = 0; i < counts.nonzero; ++i) {
    counts.negative += FloatBits(kept[i]) >> 31;
  }
  return counts;
}

}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Take);

NonzeroCounts TakeNonzero(absl::Span<const float> values, uint8_t* bits,
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

void SpreadNonzero(const uint8_t* bits, const float* kept,
                   absl::Span<float> out) {
  for (size_t begin = 0; begin < out.size(); begin += 64) {
    const size_t count = std::min<size_t>(64, out.size() - begin);
    uint64_t word = 0;
    std::memcpy(&word, bits + begin / 8, (count + 7) / 8);
    float* const to = out.data() + begin;
    // All or none of a word is common: what a ReLU cut off lies together.
    if (word == 0) {
      std::fill(to, to + count, 0.0f);
    } else if (word == ~uint64_t{0}) {
      std::memcpy(to, kept, 64 * sizeof(float));
      kept += 64;
    } else {
      for (size_t i = 0; i < count; ++i) {
        const auto bit = static_cast<uint32_t>(word >> i & 1);
        to[i] = BitsToFloat(FloatBits(*kept) & (0u - bit));
        kept += bit;
      }
    }
  }
}

}  // namespace deltapipe
#endif  // HWY_ONCE
