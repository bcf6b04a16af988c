// ShapedCodecs: what one direction of a boundary is encoded, or decoded, with:
// a codec for each shape that a sample's tensor has there.
//
// There is one, but where a job mixes image sizes (data.sizes). Then the first
// shape is that of images as they are, which evaluation sends, and only codecs
// that remember nothing are taken: a sample would have a record for each size,
// and what a codec learns from a large tensor does not fit a small one. Random
// keys do not depend on the shape. A tensor's shape follows from its elements,
// since all have as many rows.
//
// Used by one thread at a time, as its codecs are.
#ifndef DELTAPIPE_WORKER_ENGINE_SHAPED_CODECS_H_
#define DELTAPIPE_WORKER_ENGINE_SHAPED_CODECS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/image_model.h"
#include "compression/delta/boundary_codec.h"

namespace deltapipe {

/// `Coder` is BoundaryEncoder or BoundaryDecoder.
template <typename Coder>
class ShapedCodecs {
 public:
  struct Entry {
    int64_t elements = 0;     // per sample
    uint32_t codec_hash = 0;  // as frames carry it
    std::unique_ptr<Coder> coder;
  };

  /// `options` but for its elements_per_sample; extents of the tensor that its
  /// codec leaves open are filled in for each of `shapes`, of which there is
  /// one at least. INVALID_ARGUMENT as Coder::Create, and for a codec that
  /// remembers something if there are more.
  static absl::StatusOr<ShapedCodecs> Create(
      BoundaryOptions options, absl::Span<const BoundaryShape> shapes);

  /// Of the first shape; the only codec that may have state.
  const Entry& first() const { return entries_.front(); }
  /// Null if no shape has as many elements per sample.
  const Entry* Find(int64_t elements) const;
  /// "48" or "48, 27 or 12", for errors.
  std::string KnownElements() const;
  /// The codec's text: bound to the shape if there is one, else as it was
  /// given.
  const std::string& text() const { return text_; }

  void CommitStep(uint32_t step) {
    for (const Entry& entry : entries_) entry.coder->CommitStep(step);
  }
  /// Sums over all shapes; what is probed of each step is its first sample of
  /// each.
  BoundaryCounters counters() const;

 private:
  std::vector<Entry> entries_;
  std::string text_;
};

extern template class ShapedCodecs<BoundaryEncoder>;
extern template class ShapedCodecs<BoundaryDecoder>;

/// Adds every count.
BoundaryCounters operator+(BoundaryCounters a, const BoundaryCounters& b);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_SHAPED_CODECS_H_
