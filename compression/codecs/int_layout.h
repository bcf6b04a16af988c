// How the `int` codec cuts a tensor into blocks.
//
// axis=row: runs of `block` values, the last one perhaps shorter. axis=column:
// with c = min(row, n) columns, bands of `block` rows; a block is what one
// column has in one band. Blocks are numbered band by band and from left to
// right; in the last band they may be shorter, and columns that end above it
// have none.
#ifndef DELTAPIPE_COMPRESSION_CODECS_INT_LAYOUT_H_
#define DELTAPIPE_COMPRESSION_CODECS_INT_LAYOUT_H_

#include <algorithm>
#include <cstdint>

namespace deltapipe {

class IntLayout {
 public:
  /// Values begin, begin + stride, ... , `count` of them.
  struct Block {
    int64_t begin;
    int64_t stride;
    int64_t count;
  };

  /// `columns` 0: axis=row.
  IntLayout(int64_t num_elements, int64_t block, int64_t columns)
      : num_elements_(num_elements),
        block_(block),
        columns_(std::min(columns, num_elements)) {}

  int64_t num_blocks() const {
    if (columns_ == 0) return (num_elements_ + block_ - 1) / block_;
    const int64_t in_last_band = num_elements_ % (block_ * columns_);
    return num_full_bands() * columns_ + std::min(columns_, in_last_band);
  }

  Block At(int64_t index) const {
    if (columns_ == 0) {
      const int64_t begin = index * block_;
      return {begin, 1, std::min(block_, num_elements_ - begin)};
    }
    const int64_t begin =
        index / columns_ * block_ * columns_ + index % columns_;
    const int64_t rows = (num_elements_ - begin + columns_ - 1) / columns_;
    return {begin, columns_, std::min(block_, rows)};
  }

  /// The sum of bytes_of(count) over all blocks.
  template <class BytesOf>
  int64_t TotalBytes(BytesOf bytes_of) const {
    if (num_elements_ == 0) return 0;
    if (columns_ == 0) {
      const int64_t rest = num_elements_ % block_;
      return num_elements_ / block_ * bytes_of(block_) +
             (rest == 0 ? 0 : bytes_of(rest));
    }
    const int64_t in_last_band = num_elements_ % (block_ * columns_);
    const int64_t rows = in_last_band / columns_;
    const int64_t longer = in_last_band % columns_;
    return num_full_bands() * columns_ * bytes_of(block_) +
           longer * bytes_of(rows + 1) +
           (rows == 0 ? 0 : (columns_ - longer) * bytes_of(rows));
  }

 private:
  int64_t num_full_bands() const { return num_elements_ / (block_ * columns_); }

  const int64_t num_elements_;
  const int64_t block_;
  const int64_t columns_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_INT_LAYOUT_H_
