// A stream of single bits in bytes, least significant first.
#ifndef DELTAPIPE_COMPRESSION_CODECS_BIT_STREAM_H_
#define DELTAPIPE_COMPRESSION_CODECS_BIT_STREAM_H_

#include <cstdint>

namespace deltapipe {

/// Writes bits to memory that the caller keeps large enough. Finish() must
/// follow the last one.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* out) : out_(out) {}

  void Put(bool bit) {
    byte_ |= (bit ? 1u : 0u) << num_bits_;
    if (++num_bits_ == 8) Write();
  }
  /// Writes the last byte, its unused bits 0; returns how many there are.
  int64_t Finish() {
    if (num_bits_ > 0) Write();
    return num_bytes_;
  }

 private:
  void Write() {
    out_[num_bytes_++] = static_cast<uint8_t>(byte_);
    byte_ = 0;
    num_bits_ = 0;
  }

  uint8_t* const out_;
  int64_t num_bytes_ = 0;
  uint32_t byte_ = 0;
  int num_bits_ = 0;
};

/// Reads bits; the caller does not take more than there are.
class BitReader {
 public:
  explicit BitReader(const uint8_t* in) : in_(in) {}

  bool Take() {
    const bool bit = (in_[num_bits_ / 8] >> (num_bits_ % 8) & 1) != 0;
    ++num_bits_;
    return bit;
  }

 private:
  const uint8_t* const in_;
  int64_t num_bits_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_BIT_STREAM_H_
