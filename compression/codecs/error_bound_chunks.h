// One chunk of the `error_bound` codec: quantize, predict, entropy-code, and
// back. Formats: codecs/error_bound.h.
#ifndef DELTAPIPE_COMPRESSION_CODECS_ERROR_BOUND_CHUNKS_H_
#define DELTAPIPE_COMPRESSION_CODECS_ERROR_BOUND_CHUNKS_H_

#include <zstd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {

inline constexpr size_t kErrorBoundChunk = 65536;

enum class ErrorBoundChunkKind : uint32_t {
  kVerbatim = 0,
  kValues = 1,
  kDifferences = 2,
};

/// Multiples of 2 * bound, in double.
class ErrorBoundQuantizer {
 public:
  explicit ErrorBoundQuantizer(float bound)
      : bound_(bound),
        step_(2.0 * bound),
        inverse_(bound > 0 ? 1 / step_ : 0) {}

  float bound() const { return bound_; }

  /// Such values decode to 0.
  bool IsZero(float value) const { return std::fabs(value) <= bound_; }

  float Value(int64_t quantum) const {
    return static_cast<float>(static_cast<double>(quantum) * step_);
  }

  /// The nearest quantum, ties to even; 0 if it would reach 2^29, or of NaN.
  int32_t Nearest(float value) const {
    constexpr double kLimit = 0x1p29;
    constexpr double kRoundHalfEven = 0x1.8p52;
    const double quanta = value * inverse_;
    // Written so that a NaN is too large.
    if (!(std::fabs(quanta) < kLimit)) return 0;
    return static_cast<int32_t>((quanta + kRoundHalfEven) - kRoundHalfEven);
  }

  /// Whether `quantum` stands for `value`. Both are fp32 and, near the bound,
  /// of like exponents: the difference is exact.
  bool Keeps(float value, int32_t quantum) const {
    return std::fabs(static_cast<double>(value) - Value(quantum)) <= bound_;
  }

 private:
  const float bound_;
  const double step_;
  const double inverse_;
};

/// Encodes chunks one after another, with the thread's buffers and context: one
/// object a thread at a time, and no longer than a call.
class ErrorBoundChunkEncoder {
 public:
  /// `level` is zstd's; `num_elements` those of the tensor.
  ErrorBoundChunkEncoder(float bound, int level, size_t num_elements);

  /// Writes at most 4 + 4 * in.size() bytes and returns where they end. `in`
  /// has 1 to kErrorBoundChunk values.
  uint8_t* Encode(absl::Span<const float> in, uint8_t* out);

  /// Of all finite values so far.
  double max_error() const { return max_error_; }
  double sum_of_squared_errors() const { return squared_errors_; }

 private:
  void Quantize(absl::Span<const float> in);
  /// About what the codes cost: the lengths of their numbers.
  int64_t CodeBits(size_t count, bool differences) const;
  /// Fills planes_ and returns the number of bytes.
  size_t WritePlanes(absl::Span<const float> in, ErrorBoundChunkKind kind);
  /// Writes the first `size` bytes of planes_ as a frame, each plane in blocks
  /// of its own, since their statistics differ; returns its size, 0 if that
  /// were no less than that of the values.
  size_t Compress(size_t num_codes, size_t size, uint8_t* body);
  uint8_t* WriteVerbatim(absl::Span<const float> in, uint8_t* out);
  /// A value that travels as it is: still 0 within the bound.
  float Kept(float value) const { return quantizer_.IsZero(value) ? 0 : value; }
  void AddErrors(absl::Span<const float> in, bool is_verbatim);
  void AddError(double error) {
    max_error_ = std::max(max_error_, error);
    squared_errors_ += error * error;
  }

  const ErrorBoundQuantizer quantizer_;
  ZSTD_CCtx* const context_;  // the thread's; null: no memory
  ThreadScratch<int32_t> quanta_scratch_;
  ThreadScratch<uint8_t> is_as_it_is_scratch_;
  ThreadScratch<uint8_t> planes_scratch_;
  std::vector<int32_t>& quanta_ = *quanta_scratch_;
  std::vector<uint8_t>& is_as_it_is_ = *is_as_it_is_scratch_;
  std::vector<uint8_t>& planes_ = *planes_scratch_;
  double max_error_ = 0;
  double squared_errors_ = 0;
};

/// Decodes chunks one after another, likewise.
class ErrorBoundChunkDecoder {
 public:
  ErrorBoundChunkDecoder(float bound, size_t num_elements);

  /// The message of an error, empty if there is none. Whatever the frame says
  /// of its content, at most 6 bytes per element of `out` are unpacked.
  std::string Decode(ErrorBoundChunkKind kind, absl::Span<const uint8_t> body,
                     absl::Span<float> out);

 private:
  /// False if the first `size` bytes of planes_ are not out.size() codes.
  bool ReadPlanes(ErrorBoundChunkKind kind, size_t size,
                  absl::Span<float> out) const;

  const ErrorBoundQuantizer quantizer_;
  ZSTD_DCtx* const context_;  // the thread's; null: no memory
  ThreadScratch<uint8_t> planes_scratch_;
  std::vector<uint8_t>& planes_ = *planes_scratch_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_ERROR_BOUND_CHUNKS_H_
