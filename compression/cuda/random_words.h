// Philox4x32-10 for kernels: base/philox.h with plain numbers, which device
// code can hold. Equal to it in every bit (random_words_test.cc).
#ifndef DELTAPIPE_COMPRESSION_CUDA_RANDOM_WORDS_H_
#define DELTAPIPE_COMPRESSION_CUDA_RANDOM_WORDS_H_

#include <cstdint>

#include "base/host_device.h"
#include "base/philox.h"

namespace deltapipe {
namespace cuda {

struct FourWords {
  uint32_t word[4];
};

/// A RandomKey as the generator takes it.
struct RandomWords {
  uint32_t key[2];
  uint32_t step;
  uint32_t slot;
  uint32_t direction;

  explicit RandomWords(const RandomKey& random)
      : key{random.PhiloxKey()[0], random.PhiloxKey()[1]},
        step(random.step),
        slot(random.slot),
        direction(random.direction) {}

  /// The Philox block of `counter` in stream `stream` (random_stream.h).
  DP_HOST_DEVICE FourWords Block(uint32_t counter, uint32_t stream = 0) const {
    uint32_t c0 = counter, c1 = step, c2 = slot;
    uint32_t c3 = direction ^ stream << 24;
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
      const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
      c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<uint32_t>(product1);
      c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<uint32_t>(product0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
  }
};

/// UniformFloat of base/philox.h.
DP_HOST_DEVICE inline float UniformOf(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1.0p-24f;
}

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_RANDOM_WORDS_H_
