// Random words by the row, for loops that are not vector code themselves.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_PHILOX_WORDS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_PHILOX_WORDS_H_

#include <cstdint>

#include "base/philox.h"

namespace deltapipe {

/// words[16 * j + l] <- word j (below 4) of the Philox block of `key` with
/// counter `first_counter` + l (below 16), by the machine's best vector
/// instructions. `words` has 64 places and is aligned to 64 bytes.
void FillPhiloxWords(const RandomKey& key, uint32_t first_counter,
                     uint32_t* words);

/// One random word per element, in order: element 64 g + 16 j + l takes word j
/// of the block of counter 16 g + l.
class ElementWords {
 public:
  explicit ElementWords(const RandomKey& key) : key_(key) {}

  /// The word of the next element, from the first on.
  uint32_t Next() {
    if (element_ % 64 == 0) {
      FillPhiloxWords(key_, static_cast<uint32_t>(element_ / 4), words_);
    }
    return words_[element_++ % 64];
  }

 private:
  const RandomKey key_;
  uint64_t element_ = 0;
  alignas(64) uint32_t words_[64];
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_PHILOX_WORDS_H_
