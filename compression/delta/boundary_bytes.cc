// What a boundary's codec costs, for plans and for checking job specs.
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/delta/boundary_body.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/boundary_spec.h"

namespace deltapipe {
namespace {

double PayloadBytes(const Codec& codec, int64_t num_elements) {
  const Codec::Traits traits = codec.traits();
  return traits.has_fixed_size
             ? static_cast<double>(codec.MaxPayloadBytes(num_elements))
             : traits.bits_per_element * static_cast<double>(num_elements) / 8;
}

}  // namespace

absl::Status CheckBoundaryCodec(const std::string& codec, bool* keeps_state) {
  DP_ASSIGN_OR_RETURN(const BoundarySpec spec, ParseBoundarySpec(codec, 0));
  if (keeps_state != nullptr) {
    *keeps_state = spec.kind == BoundarySpec::Kind::kDelta;
  }
  return absl::OkStatus();
}

absl::StatusOr<BoundaryBytes> PredictBoundaryBytes(
    const std::string& codec, int64_t samples, int64_t elements_per_sample) {
  DP_ASSIGN_OR_RETURN(const BoundarySpec spec, ParseBoundarySpec(codec, 0));
  if (samples < 0 || elements_per_sample < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot predict bytes of ", samples, " samples of ",
                     elements_per_sample, " elements"));
  }
  const double table = static_cast<double>(BodyTableBytes(samples));
  const double rows = static_cast<double>(samples);
  const Codec& first = spec.first != nullptr ? *spec.first : *spec.codec;
  BoundaryBytes bytes;
  bytes.first_visit = table + rows * PayloadBytes(first, elements_per_sample);
  bytes.later_visit =
      table + rows * PayloadBytes(*spec.codec, elements_per_sample);
  bytes.state_per_sample =
      static_cast<double>(spec.RecordBytes(elements_per_sample));
  return bytes;
}

}  // namespace deltapipe
