#include "compression/delta/boundary_channel.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/status_macros.h"

namespace deltapipe {

absl::StatusOr<BoundaryChannel> BoundaryChannel::Create(
    const BoundaryOptions& options) {
  // A row's payload has a 32-bit length; no codec needs more than 8 bytes a
  // value.
  constexpr int64_t kMaxElements = int64_t{1} << 28;
  if (options.elements_per_sample < 1 ||
      options.elements_per_sample > kMaxElements) {
    return absl::InvalidArgumentError(absl::StrCat(
        "boundary ", options.boundary_id, ": expected 1..", kMaxElements,
        " elements per sample, got ", options.elements_per_sample));
  }
  if (options.state_capacity_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("boundary ", options.boundary_id,
                     ": expected a state capacity of 0 or "
                     "more bytes, got ",
                     options.state_capacity_bytes));
  }
  BoundaryChannel channel;
  channel.options = options;
  DP_ASSIGN_OR_RETURN(channel.spec,
                      ParseBoundarySpec(options.codec, options.direction));
  DP_ASSIGN_OR_RETURN(channel.evaluation_codec, MakeCodec("cast(bf16)"));
  const std::string text = channel.spec.Text();
  channel.codec_hash = Checksum(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  return channel;
}

absl::StatusOr<std::unique_ptr<StateStore>> BoundaryChannel::MakeStore() const {
  if (spec.kind == BoundarySpec::Kind::kStateless) {
    return std::unique_ptr<StateStore>();
  }
  if (options.state_folder.empty()) return MakeMemoryStateStore();
  return MakeFileStateStore(options.state_folder, record_bytes());
}

int64_t BoundaryChannel::max_payload_bytes() const {
  int64_t bytes = spec.codec->MaxPayloadBytes(num_elements());
  if (spec.first != nullptr) {
    bytes = std::max(bytes, spec.first->MaxPayloadBytes(num_elements()));
  }
  return bytes;
}

BodyContext BoundaryChannel::Context(uint32_t step) const {
  BodyContext context;
  context.codec_hash = codec_hash;
  context.boundary_id = options.boundary_id;
  context.direction = options.direction;
  context.elements_per_sample = options.elements_per_sample;
  context.step = step;
  return context;
}

BodyContext BoundaryChannel::KeyframeContext() const {
  BodyContext context = Context(0);
  context.is_keyframes = true;
  return context;
}

absl::Status BoundaryChannel::CheckValues(size_t num_samples,
                                          size_t num_values) const {
  const size_t expected = num_samples * static_cast<size_t>(num_elements());
  if (num_values == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "boundary ", options.boundary_id, ": expected ", expected, " values for ",
      num_samples, " samples of ", num_elements(), ", got ", num_values));
}

}  // namespace deltapipe
