// TrialInput: the bytes of a fuzzer, or of a random generator, read as choices.
//
// Reading past the end gives zeros, so that every input is a trial.
#ifndef DELTAPIPE_COMPRESSION_TESTING_TRIAL_INPUT_H_
#define DELTAPIPE_COMPRESSION_TESTING_TRIAL_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace deltapipe {

class TrialInput {
 public:
  explicit TrialInput(absl::Span<const uint8_t> bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  absl::Span<const uint8_t> rest() const { return bytes_; }

  uint8_t Byte() {
    if (bytes_.empty()) return 0;
    const uint8_t byte = bytes_[0];
    bytes_.remove_prefix(1);
    return byte;
  }
  /// 0 to `count` - 1; `count` is 1 to 65,536.
  size_t Index(size_t count) {
    const size_t low = Byte();
    return (low + 256 * Byte()) % count;
  }

  /// Spends the rest on changes to `bytes`: flipped bits, other bytes, a cut,
  /// some bytes more.
  void Damage(std::vector<uint8_t>* bytes) {
    while (!empty()) {
      const uint8_t kind = Byte() % 4;
      const size_t place = Index(65536);
      const uint8_t value = Byte();
      if (kind == 3) {
        bytes->insert(bytes->end(), 1 + place % 16, value);
      } else if (!bytes->empty()) {
        uint8_t& byte = (*bytes)[place % bytes->size()];
        if (kind == 0) byte ^= static_cast<uint8_t>(1 << value % 8);
        if (kind == 1) byte = value;
        if (kind == 2) bytes->resize(place % bytes->size());
      }
    }
  }

 private:
  absl::Span<const uint8_t> bytes_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_TESTING_TRIAL_INPUT_H_
