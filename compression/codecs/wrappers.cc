// The parameters of the wrappers, whose code is in compression/delta: listed
// here so that codec texts are checked in one place.
#include "absl/types/span.h"
#include "compression/codec_spec.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {

absl::Span<const CodecParameter> DeltaParameters();
absl::Span<const CodecParameter> ErrorFeedbackParameters();

namespace {

constexpr CodecParameter StoreParameter(const char* default_text,
                                        const char* summary,
                                        const char* choices) {
  CodecParameter parameter =
      InnerCodecParameter("store", default_text, summary);
  parameter.choices = choices;
  return parameter;
}

constexpr CodecParameter kDeltaParameters[] = {
    InnerCodecParameter("codec", "", "for the change since the last visit"),
    InnerCodecParameter("first", "int(8)", "for the value of a first visit"),
    StoreParameter("bf16", "what both ends keep records in, such as int(8)",
                   "bf16|fp32"),
};

constexpr CodecParameter kErrorFeedbackParameters[] = {
    InnerCodecParameter("codec", "", "for the value plus the residual"),
    StoreParameter("fp32", "what the sender keeps residuals in, such as int(8)",
                   "fp32"),
};

}  // namespace

absl::Span<const CodecParameter> DeltaParameters() { return kDeltaParameters; }

absl::Span<const CodecParameter> ErrorFeedbackParameters() {
  return kErrorFeedbackParameters;
}

}  // namespace deltapipe
