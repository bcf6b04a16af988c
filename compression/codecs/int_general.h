// The `int` codec with affine levels, scales in bf16 or fp32, blocks down
// columns or slow channel scales: what int_quantize.h does not do. Payload and
// rules: int.h. Made by MakeIntCodec alone.
#ifndef DELTAPIPE_COMPRESSION_CODECS_INT_GENERAL_H_
#define DELTAPIPE_COMPRESSION_CODECS_INT_GENERAL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "compression/codec.h"
#include "compression/kernels/int_block.h"

namespace deltapipe {

struct IntGeneralOptions {
  IntBlockFormat block;
  /// Columns of a row; 0: the tensor is one column.
  int64_t row = 0;
  bool is_by_column = false;
  bool has_channels = false;
};

/// `text` is the codec's canonical text.
std::unique_ptr<Codec> MakeGeneralIntCodec(std::string text,
                                           const IntGeneralOptions& options);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_INT_GENERAL_H_
