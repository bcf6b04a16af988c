#include "worker/saved_activations/bit_mask.h"

#include <algorithm>
#include <cfloat>
#include <cstring>

namespace deltapipe {
namespace {

// Gathers the lowest bits of eight bytes, the first byte's lowest.
constexpr uint64_t kGather = 0x0102040810204080u;
constexpr uint64_t kOnes = 0x0101010101010101u;

}  // namespace

void PackBits(absl::Span<const uint8_t> bools, absl::Span<uint8_t> bits) {
  const size_t whole = bools.size() / 8;
  for (size_t i = 0; i < whole; ++i) {
    uint64_t eight;
    std::memcpy(&eight, &bools[8 * i], sizeof(eight));
    bits[i] = static_cast<uint8_t>(((eight & kOnes) * kGather) >> 56);
  }
  if (bools.size() % 8 == 0) return;
  uint8_t last = 0;
  for (size_t i = 8 * whole; i < bools.size(); ++i) {
    last |= static_cast<uint8_t>((bools[i] & 1u) << (i % 8));
  }
  bits[whole] = last;
}

void UnpackBits(absl::Span<const uint8_t> bits, absl::Span<uint8_t> bools) {
  for (size_t i = 0; i < bools.size(); ++i) {
    bools[i] = (bits[i / 8] >> (i % 8)) & 1u;
  }
}

void PackNonzeros(absl::Span<const float> values, absl::Span<uint8_t> bits) {
  for (size_t begin = 0; begin < values.size(); begin += 8) {
    const size_t end = std::min(begin + 8, values.size());
    uint8_t byte = 0;
    for (size_t i = begin; i < end; ++i) {
      byte |= static_cast<uint8_t>((values[i] != 0 ? 1u : 0u) << (i - begin));
    }
    bits[begin / 8] = byte;
  }
}

void RestoreZeros(absl::Span<const uint8_t> bits, absl::Span<float> values) {
  for (size_t i = 0; i < values.size(); ++i) {
    const bool is_set = ((bits[i / 8] >> (i % 8)) & 1u) != 0;
    const float value = values[i] > 0 ? values[i] : FLT_MIN;
    values[i] = is_set ? value : 0.0f;
  }
}

}  // namespace deltapipe
