// The parameters of the wrappers, whose code is in compression/delta: listed
// here so that codec texts are checked in one place.
#include "absl/types/span.h"
#include "compression/codec_spec.h"

namespace deltapipe {

absl::Span<const CodecParameter> DeltaParameters();
absl::Span<const CodecParameter> ErrorFeedbackParameters();

namespace {

constexpr CodecParameter MakeCodecParameter(absl::string_view name,
                                            absl::string_view default_text,
                                            absl::string_view summary) {
  CodecParameter parameter;
  parameter.name = name;
  parameter.kind = CodecParameter::Kind::kCodec;
  parameter.default_text = default_text;
  parameter.summary = summary;
  return parameter;
}

constexpr CodecParameter MakeStoreParameter() {
  CodecParameter parameter;
  parameter.name = "store";
  parameter.kind = CodecParameter::Kind::kChoice;
  parameter.default_text = "bf16";
  parameter.choices = "bf16|fp32";
  parameter.summary = "what both ends keep records in";
  return parameter;
}

constexpr CodecParameter kDeltaParameters[] = {
    MakeCodecParameter("codec", "", "for the change since the last visit"),
    MakeCodecParameter("first", "int(8)", "for the value of a first visit"),
    MakeStoreParameter(),
};

constexpr CodecParameter kErrorFeedbackParameters[] = {
    MakeCodecParameter("codec", "", "for the value plus the residual"),
};

}  // namespace

absl::Span<const CodecParameter> DeltaParameters() { return kDeltaParameters; }

absl::Span<const CodecParameter> ErrorFeedbackParameters() {
  return kErrorFeedbackParameters;
}

}  // namespace deltapipe
