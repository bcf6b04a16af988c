#include "worker/engine/shaped_codecs.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "compression/codec_registry.h"
#include "compression/delta/boundary_spec.h"

namespace deltapipe {
namespace {

uint32_t CodecHash(const std::string& codec) {
  return static_cast<uint32_t>(Checksum(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(codec.data()), codec.size())));
}

absl::Status CheckRemembersNothing(const BoundaryOptions& options) {
  DP_ASSIGN_OR_RETURN(const BoundarySpec spec,
                      ParseBoundarySpec(options.codec, options.direction));
  if (!spec.Remembers()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "boundary ", options.boundary_id,
      ": tensors of several sizes (data.sizes) take a codec that remembers "
      "nothing, such as int(8), got ",
      options.codec));
}

}  // namespace

template <typename Coder>
absl::StatusOr<ShapedCodecs<Coder>> ShapedCodecs<Coder>::Create(
    BoundaryOptions options, absl::Span<const BoundaryShape> shapes) {
  if (shapes.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("boundary ", options.boundary_id, ": no tensor's shape"));
  }
  if (shapes.size() > 1) DP_RETURN_IF_ERROR(CheckRemembersNothing(options));
  ShapedCodecs codecs;
  codecs.text_ = options.codec;
  for (const BoundaryShape& shape : shapes) {
    DP_ASSIGN_OR_RETURN(
        options.codec,
        BindTensorShape(codecs.text_, {shape.rows, shape.columns}));
    Entry entry;
    entry.elements = shape.rows * shape.columns;
    entry.codec_hash = CodecHash(options.codec);
    if (codecs.Find(entry.elements) != nullptr) continue;
    options.elements_per_sample = entry.elements;
    DP_ASSIGN_OR_RETURN(entry.coder, Coder::Create(options));
    codecs.entries_.push_back(std::move(entry));
  }
  if (codecs.entries_.size() == 1) codecs.text_ = options.codec;
  return codecs;
}

template <typename Coder>
const typename ShapedCodecs<Coder>::Entry* ShapedCodecs<Coder>::Find(
    int64_t elements) const {
  for (const Entry& entry : entries_) {
    if (entry.elements == elements) return &entry;
  }
  return nullptr;
}

template <typename Coder>
std::string ShapedCodecs<Coder>::KnownElements() const {
  std::string known = absl::StrCat(first().elements);
  for (size_t i = 1; i < entries_.size(); ++i) {
    absl::StrAppend(&known, i + 1 == entries_.size() ? " or " : ", ",
                    entries_[i].elements);
  }
  return known;
}

template <typename Coder>
BoundaryCounters ShapedCodecs<Coder>::counters() const {
  BoundaryCounters sum;
  for (const Entry& entry : entries_) sum = sum + entry.coder->counters();
  return sum;
}

template class ShapedCodecs<BoundaryEncoder>;
template class ShapedCodecs<BoundaryDecoder>;

BoundaryCounters operator+(BoundaryCounters a, const BoundaryCounters& b) {
  a.samples += b.samples;
  a.delta_rows += b.delta_rows;
  a.value_rows += b.value_rows;
  a.keyframe_rows += b.keyframe_rows;
  a.evictions += b.evictions;
  a.raw_bytes += b.raw_bytes;
  a.body_bytes += b.body_bytes;
  a.evaluation_samples += b.evaluation_samples;
  a.evaluation_raw_bytes += b.evaluation_raw_bytes;
  a.evaluation_body_bytes += b.evaluation_body_bytes;
  a.probed_value_squares += b.probed_value_squares;
  a.probed_error_squares += b.probed_error_squares;
  a.not_finite += b.not_finite;
  return a;
}

}  // namespace deltapipe
