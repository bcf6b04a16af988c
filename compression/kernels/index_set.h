// Which k of n elements: a set of indices as few bits, of a size that n and k
// alone decide.
//
// Either a bitmap of n bits or, where that is smaller, the Elias-Fano code: of
// each index the low l = floor(log2(n / k)) bits as they are, then the
// differences of the high parts in unary, about 2 + log2(n / k) bits per index.
//
//   bitmap       u8[ceil(n / 8)]    bit i of the stream: element i is in the
//   set Elias-Fano   u8[ceil(k l / 8)]  the low parts, index after index
//                u8[ceil(h / 8)]    h = k + ((n - 1) >> l) bits; index i, in
//                                   ascending order, sets bit (index >> l) + i
// Streams begin at the least significant bit; unused bits are 0. Sets of none
// and of all elements have no bytes.
//
// Elias, "Efficient storage and retrieval by content and address of static
// files", J. ACM 1974; Fano, MIT Computation Structures Group Memo 61, 1971.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_INDEX_SET_H_
#define DELTAPIPE_COMPRESSION_KERNELS_INDEX_SET_H_

#include <cstdint>

namespace deltapipe {

/// How a set of k of n is laid out; 0 <= k <= n < 2^48.
struct IndexSetLayout {
  IndexSetLayout(int64_t num_elements, int64_t num_indices);

  int64_t n;
  int64_t k;
  bool is_bitmap = false;
  int low_bits = 0;
  int64_t low_bytes = 0;
  /// Of the bitmap or of the high parts, in bits.
  int64_t num_high_bits = 0;

  int64_t bytes() const { return low_bytes + (num_high_bits + 7) / 8; }
};

/// Writes k indices, each larger than the one before, to layout.bytes() bytes.
class IndexSetWriter {
 public:
  IndexSetWriter(const IndexSetLayout& layout, uint8_t* out);
  void Add(int64_t index);

 private:
  const IndexSetLayout layout_;
  uint8_t* const out_;
  int64_t num_added_ = 0;
};

/// Reads them back from any layout.bytes() bytes.
class IndexSetReader {
 public:
  IndexSetReader(const IndexSetLayout& layout, const uint8_t* in);

  /// The next index: larger than the one before and below n. Called up to k
  /// times. -1 where the bytes are not those of a set of k of n.
  int64_t Next();
  /// After k indices: nothing but zeros is left.
  bool IsAtEnd();

 private:
  /// The position of the next bit that is 1, -1 if there is none.
  int64_t NextOne();

  const IndexSetLayout layout_;
  const uint8_t* const low_;
  const uint8_t* const high_;
  int64_t position_ = 0;  // in the high bits
  int64_t num_read_ = 0;
  int64_t last_ = -1;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_INDEX_SET_H_
