// The text that names what crosses a boundary, made into codecs: a stateless
// codec, delta(codec,first=codec,store=bf16|fp32|codec) or
// ef(codec,store=fp32|codec).
#ifndef DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_SPEC_H_
#define DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_SPEC_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compression/codec.h"

namespace deltapipe {

struct BoundarySpec {
  enum class Kind { kStateless, kDelta, kErrorFeedback };
  enum class Store { kBFloat16, kFloat32, kCodec };

  Kind kind = Kind::kStateless;
  /// Of values (kStateless), differences (kDelta) or values plus residuals.
  std::unique_ptr<Codec> codec;
  /// Of values that are sent without prediction; null unless kDelta.
  std::unique_ptr<Codec> first;
  /// What records are kept in, or residuals (never bf16).
  Store store = Store::kBFloat16;
  /// Of kCodec: deterministic, of a fixed size.
  std::shared_ptr<const Codec> store_codec;

  /// Bytes of state for one sample; 0 without state.
  int64_t RecordBytes(int64_t num_elements) const;
  /// Whether what is sent depends on what was sent before: records, residuals,
  /// or a codec that has_memory.
  bool Remembers() const;
  /// Whether records or residuals of the other one can be taken over.
  bool KeepsAs(const BoundarySpec& other) const;
  /// The canonical text: equal for texts that mean the same.
  std::string Text() const;
};

/// `direction` as in BoundaryOptions: 1 makes an outermost int(...) without a
/// rounding stochastic. INVALID_ARGUMENT with the column of the mistake.
absl::StatusOr<BoundarySpec> ParseBoundarySpec(absl::string_view text,
                                               uint32_t direction);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_SPEC_H_
