// What both ends of a boundary derive from BoundaryOptions: codecs, sizes, the
// context of bodies and the keys of random numbers. Immutable; thread-safe.
#ifndef DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_CHANNEL_H_
#define DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_CHANNEL_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/philox.h"
#include "compression/codec.h"
#include "compression/delta/boundary_body.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/boundary_spec.h"
#include "compression/delta/record_math.h"
#include "compression/delta/state_store.h"

namespace deltapipe {

struct BoundaryChannel {
  BoundaryOptions options;
  BoundarySpec spec;
  std::unique_ptr<Codec> evaluation_codec;  // cast(bf16)
  uint64_t codec_hash = 0;
  /// For a RecordMath of each end; lives as long as this object.
  RecordForm record_form() const {
    return {spec.store == BoundarySpec::Store::kFloat32,
            spec.store_codec.get()};
  }

  /// INVALID_ARGUMENT as for BoundaryEncoder::Create.
  static absl::StatusOr<BoundaryChannel> Create(const BoundaryOptions& options);

  int64_t num_elements() const { return options.elements_per_sample; }
  int64_t record_bytes() const { return spec.RecordBytes(num_elements()); }
  /// Of the largest row in training, whichever codec it goes through.
  int64_t max_payload_bytes() const;
  int64_t RawBytes(size_t num_samples) const {
    return static_cast<int64_t>(num_samples) * num_elements() * 4;
  }

  BodyContext Context(uint32_t step) const;
  BodyContext KeyframeContext() const;
  RandomKey Key(uint32_t step, uint32_t slot) const {
    return {options.seed, options.boundary_id, step, slot, options.direction};
  }

  /// A store for this channel's records; null if the codec keeps none.
  absl::StatusOr<std::unique_ptr<StateStore>> MakeStore() const;

  /// INVALID_ARGUMENT unless there are elements_per_sample values a sample.
  absl::Status CheckValues(size_t num_samples, size_t num_values) const;

  template <typename Float>
  absl::Span<Float> Row(absl::Span<Float> values, size_t index) const {
    const size_t size = static_cast<size_t>(num_elements());
    return values.subspan(index * size, size);
  }
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_CHANNEL_H_
