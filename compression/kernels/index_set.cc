#include "compression/kernels/index_set.h"

#include <algorithm>

namespace deltapipe {

IndexSetLayout::IndexSetLayout(int64_t num_elements, int64_t num_indices)
    : n(num_elements), k(num_indices) {
  if (k == 0 || k == n) return;
  for (int64_t quotient = n / k; quotient > 1; quotient /= 2) ++low_bits;
  low_bytes = (k * low_bits + 7) / 8;
  num_high_bits = k + ((n - 1) >> low_bits);
  if (bytes() >= (n + 7) / 8) {
    is_bitmap = true;
    low_bits = 0;
    low_bytes = 0;
    num_high_bits = n;
  }
}

IndexSetWriter::IndexSetWriter(const IndexSetLayout& layout, uint8_t* out)
    : layout_(layout), out_(out) {
  std::fill_n(out_, layout_.bytes(), uint8_t{0});
}

void IndexSetWriter::Add(int64_t index) {
  if (layout_.num_high_bits == 0) return;
  uint8_t* const high = out_ + layout_.low_bytes;
  const int64_t position =
      layout_.is_bitmap ? index : (index >> layout_.low_bits) + num_added_;
  high[position / 8] |= static_cast<uint8_t>(1 << (position % 8));
  // At most 47 low bits and 7 in front of them.
  const int64_t begin = num_added_++ * layout_.low_bits;
  uint64_t bits =
      static_cast<uint64_t>(index) & ((uint64_t{1} << layout_.low_bits) - 1);
  bits <<= begin % 8;
  for (uint8_t* at = out_ + begin / 8; bits != 0; bits >>= 8) {
    *at++ |= static_cast<uint8_t>(bits);
  }
}

IndexSetReader::IndexSetReader(const IndexSetLayout& layout, const uint8_t* in)
    : layout_(layout), low_(in), high_(in + layout.low_bytes) {}

int64_t IndexSetReader::Next() {
  if (layout_.num_high_bits == 0) return ++last_;
  const int64_t position = NextOne();
  if (position < 0) return -1;
  int64_t index = position;
  if (!layout_.is_bitmap) {
    const int64_t begin = num_read_ * layout_.low_bits;
    const int64_t num_bits = begin % 8 + layout_.low_bits;
    uint64_t bits = 0;
    for (int64_t i = 0; 8 * i < num_bits; ++i) {
      bits |= uint64_t{low_[begin / 8 + i]} << (8 * i);
    }
    bits = bits >> (begin % 8) & ((uint64_t{1} << layout_.low_bits) - 1);
    index =
        (position - num_read_) << layout_.low_bits | static_cast<int64_t>(bits);
  }
  ++num_read_;
  if (index <= last_ || index >= layout_.n) return -1;
  last_ = index;
  return index;
}

bool IndexSetReader::IsAtEnd() {
  if (layout_.num_high_bits == 0) return true;
  const int64_t unused_low = layout_.k * layout_.low_bits % 8;
  const bool low_is_clean =
      unused_low == 0 || low_[layout_.low_bytes - 1] >> unused_low == 0;
  const int64_t unused_high = layout_.num_high_bits % 8;
  const bool high_is_clean =
      unused_high == 0 || high_[layout_.num_high_bits / 8] >> unused_high == 0;
  return NextOne() < 0 && low_is_clean && high_is_clean;
}

int64_t IndexSetReader::NextOne() {
  while (position_ < layout_.num_high_bits) {
    const unsigned bits = high_[position_ / 8] >> (position_ % 8);
    if (bits == 0) {
      position_ = (position_ / 8 + 1) * 8;
      continue;
    }
    position_ += __builtin_ctz(bits);
    return position_ < layout_.num_high_bits ? position_++ : -1;
  }
  return -1;
}

}  // namespace deltapipe
