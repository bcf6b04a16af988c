// error_bound(abs=off,rel=0.001,level=3): no element is off by more than a
// bound, and the payload is as small as entropy coding makes it.
//
// The bound b is `abs`, or else `rel` times the largest finite magnitude of the
// tensor, rounded down to fp32. Every finite x decodes to a finite x' with
// |x - x'| <= b, exactly, not up to rounding; where |x| <= b to +0, so that
// what a ReLU cut off stays zero. NaN and infinities keep all their bits.
//
// A value becomes q = round_half_even(x / 2b) and decodes to q * 2b, in double,
// rounded once. Codes are of q or, chunk by chunk where that is cheaper, of the
// difference from the q before (Lorenzo's predictor in one dimension). A value
// whose code does not fit, or whose q * 2b would break the bound once rounded,
// travels as it is.
//
// Payload of n > 0 elements:
//   f32           b
//   f32           the largest error made
//   f32           the mean square of all errors made
//   for each chunk of 65,536 elements, the last perhaps shorter:
//   u32           kind (2 bits) + 4 * number of bytes that follow
//   u8[...]       kind 0: the values as f32, those of magnitude <= b as 0
//                 kind 1, 2: one zstd frame
// A frame holds, of a chunk of c elements, u8[c] low and u8[c] high bytes of
// 16-bit codes, then an f32 for each code 65,535, in order. Other codes stand
// for 0, -1, 1, -2, ...: q (kind 1) or q minus the last q (kind 2, begun at 0;
// after a value that travels as it is, q is that value's, or 0 if it would
// reach 2^29). No elements, no bytes. At most 32 bits per element, 4 bytes per
// chunk and 12.
//
// The frame's bytes are zstd's and may change with its version; what they
// decode to does not. `level` is zstd's. Its tables are the calling thread's,
// as large as the worst chunk so far needed: of all codecs, this one alone may
// allocate for a tensor of a size that the thread has seen.
//
// Jin et al., "COMET: A Novel Memory-Efficient Deep Learning Training Framework
// by Using Error-Bounded Lossy Compression", VLDB 2022, arXiv 2111.09562; Tao
// et al., SZ, arXiv 1706.03791; quantization before prediction as in cuSZ, Tian
// et al., arXiv 2007.09625.
#ifndef DELTAPIPE_COMPRESSION_CODECS_ERROR_BOUND_H_
#define DELTAPIPE_COMPRESSION_CODECS_ERROR_BOUND_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

/// What an error_bound payload says of itself, for models of how much error a
/// training bears.
struct ErrorBoundStatistics {
  double bound = 0;
  double max_error = 0;
  double mean_square_error = 0;
};

/// INVALID_ARGUMENT if the payload is too short for its head or says what
/// cannot be. Zeros for an empty one.
absl::StatusOr<ErrorBoundStatistics> ReadErrorBoundStatistics(
    absl::Span<const uint8_t> payload);

absl::Span<const CodecParameter> ErrorBoundParameters();
absl::StatusOr<std::unique_ptr<Codec>> MakeErrorBoundCodec(
    const CodecArguments& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_ERROR_BOUND_H_
