// The `int` codec's kernels: blocks of floats to codes of 1 to 8 bits, and
// back.
//
// Payload of n > 0 elements, blocks of `format.block`:
//   u8                      the window of the fine scales (int_scale.h)
//   u8[ceil(n / block)]     a scale per block (int_scale.h)
//   u8[ceil(n * bits / 8)]  the codes as one stream of bits, least significant
//                           first; the unused bits at the end are 0
// No elements, no bytes. IntQuantize runs the machine's best vector
// instructions; it and IntDequantize are bit-equal to
// compression/kernels/reference/int_quantize.h.
//
// Nearest rounding: ties to the even code. A model's clip is rounded to the
// nearest scale, and searched for where scales are coarse. The clip search
// takes the first of the listed scales with the least sum of squared errors;
// sums run over 16 lanes (element i of the block into lane i % 16) and end in a
// fixed tree. A short last block counts as filled up with zeros.
//
// Stochastic rounding: up with probability equal to the fraction, to within
// 2^-24 of a step. Element 64 g + 16 j + l (j < 4, l < 16) takes word j of the
// Philox block of counter 16 g + l, its upper 24 bits.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_INT_QUANTIZE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_INT_QUANTIZE_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "base/host_device.h"
#include "base/philox.h"
#include "compression/kernels/int_scale.h"
#include "compression/kernels/int_window.h"

namespace deltapipe {

DP_HOST_DEVICE inline int64_t IntNumBlocks(const IntFormat& format,
                                           int64_t num_elements) {
  return (num_elements + format.block - 1) / format.block;
}

DP_HOST_DEVICE inline int64_t IntCodeBytes(const IntFormat& format,
                                           int64_t num_elements) {
  return (num_elements * format.bits + 7) / 8;
}

DP_HOST_DEVICE inline int64_t IntPayloadBytes(const IntFormat& format,
                                              int64_t num_elements) {
  return num_elements == 0 ? 0
                           : 1 + IntNumBlocks(format, num_elements) +
                                 IntCodeBytes(format, num_elements);
}

/// Writes IntPayloadBytes(format, in.size()) bytes to `payload`. A block with a
/// NaN or an infinity becomes kIntScaleNonFinite and zero codes.
void IntQuantize(const IntFormat& format, absl::Span<const float> in,
                 const RandomKey& key, uint8_t* payload);

/// Reads IntPayloadBytes(format, out.size()) bytes. Any bytes decode: to finite
/// values, or to NaN in the blocks whose scale is kIntScaleNonFinite. The
/// window must be at most kIntMaxWindow.
void IntDequantize(const IntFormat& format, const uint8_t* payload,
                   absl::Span<float> out);

/// IntQuantize for values that are made on the way, a tile at a time, so that
/// they need not all lie in memory; gives what the payload decodes to as it
/// goes. The same bytes and values as IntQuantize and IntDequantize.
///
///   IntTileEncoder encoder(format, n, key, payload);
///   do {
///     for (each tile) encoder.Encode(tile, restored);
///   } while (!encoder.Finish());
///
/// Mostly one pass: the payload's window is guessed (int_window.h). Where the
/// largest magnitude of a block is more than 2^8 or less than 2^-8 times those
/// where the first tile begins, there may be a second one, which is always the
/// last. There always is for 1 and 2 bits with a searched clip and for computed
/// clips.
///
/// Tiles are of a multiple of `format.block` values, but for the last one.
/// Used by one thread at a time; allocates nothing. Whoever stops before Finish
/// is true leaves a payload of no meaning.
class IntTileEncoder {
 public:
  /// `payload`: IntPayloadBytes(format, num_elements) bytes, borrowed.
  IntTileEncoder(const IntFormat& format, int64_t num_elements,
                 const RandomKey& key, uint8_t* payload);

  /// The next tile. `restored` may be `tile`; null: not wanted. False, with
  /// `restored` untouched: this pass has to be followed by another one.
  bool Encode(absl::Span<const float> tile, float* restored);

  /// Leaves the rest of this pass to measuring, for another one.
  void StopGuessing() { is_encoding_ = is_encoding_ && is_last_pass_; }

  /// After all tiles: whether the payload is complete; all tiles have to come
  /// again if it is not.
  bool Finish();

  /// What the kernels work on.
  struct State {
    IntFormat format;
    RandomKey key;
    size_t num_elements;
    uint8_t* payload;
    uint8_t* scales = nullptr;
    uint8_t* packed = nullptr;
    uint8_t* end = nullptr;
    /// Of this pass.
    IntBlockMaxima maxima{};
    size_t num_encoded = 0;
    IntUnits units = IntUnits(0);
  };

 private:
  State state_;
  bool has_begun_ = false;
  bool is_encoding_;
  bool is_last_pass_ = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_INT_QUANTIZE_H_
