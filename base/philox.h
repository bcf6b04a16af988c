// Philox4x32-10, a counter-based random generator: the same key and counter
// give the same bits on any machine, thread count or replay.
//
// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011. Stateless and thread-safe.
#ifndef DELTAPIPE_BASE_PHILOX_H_
#define DELTAPIPE_BASE_PHILOX_H_

#include <array>
#include <cstdint>

namespace deltapipe {

/// What the random bits of one encoded tensor depend on, and nothing else.
/// Two uses that must differ must differ in one of these.
struct RandomKey {
  uint64_t seed = 0;
  uint32_t tensor_id = 0;  // boundary, bucket or parameter id
  uint32_t step = 0;       // optimizer step
  uint32_t slot = 0;       // position of the sample in the global batch
  uint32_t direction = 0;  // 0 forward, 1 backward, 2 gradient

  /// The Philox key (64 bits).
  std::array<uint32_t, 2> PhiloxKey() const;
  /// The counter of block `index`: 4 random words per block.
  std::array<uint32_t, 4> PhiloxCounter(uint32_t index) const;
};

using PhiloxBlock = std::array<uint32_t, 4>;

inline PhiloxBlock Philox4x32(std::array<uint32_t, 4> counter,
                              std::array<uint32_t, 2> key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u;
  constexpr uint32_t kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u;
  constexpr uint32_t kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

inline std::array<uint32_t, 2> RandomKey::PhiloxKey() const {
  // The high half of the seed and the tensor id share a word through an odd
  // multiplier, so that neither of them hides the other.
  return {static_cast<uint32_t>(seed),
          static_cast<uint32_t>(seed >> 32) ^ (tensor_id * 0x9E3779B1u)};
}

inline std::array<uint32_t, 4> RandomKey::PhiloxCounter(uint32_t index) const {
  return {index, step, slot, direction};
}

/// A uniform float in [0, 1): the top 24 bits of `word`.
inline float UniformFloat(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1.0p-24f;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_PHILOX_H_
