// Short forms for a codec's table of parameters.
//
//   constexpr CodecParameter kParameters[] = {
//       IntegerParameter("bits", "", 1, 8, "bits per value"),
//       ChoiceParameter("round", "nearest", "nearest|stochastic", "how"),
//   };
#ifndef DELTAPIPE_COMPRESSION_CODECS_PARAMETERS_H_
#define DELTAPIPE_COMPRESSION_CODECS_PARAMETERS_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "compression/codec_spec.h"

namespace deltapipe {

/// What parameters of all kinds have.
constexpr CodecParameter ParameterOf(CodecParameter::Kind kind,
                                     absl::string_view name,
                                     absl::string_view default_text,
                                     absl::string_view summary) {
  CodecParameter parameter;
  parameter.name = name;
  parameter.kind = kind;
  parameter.default_text = default_text;
  parameter.summary = summary;
  return parameter;
}

/// From `min` to `max`, in multiples of `multiple_of`.
constexpr CodecParameter IntegerParameter(absl::string_view name,
                                          absl::string_view default_text,
                                          int64_t min, int64_t max,
                                          absl::string_view summary,
                                          int64_t multiple_of = 1) {
  CodecParameter parameter =
      ParameterOf(CodecParameter::Kind::kInteger, name, default_text, summary);
  parameter.min = min;
  parameter.max = max;
  parameter.multiple_of = multiple_of;
  return parameter;
}

/// Above `low` and below `high`.
constexpr CodecParameter NumberParameter(absl::string_view name,
                                         absl::string_view default_text,
                                         double low, double high,
                                         absl::string_view summary) {
  CodecParameter parameter =
      ParameterOf(CodecParameter::Kind::kNumber, name, default_text, summary);
  parameter.low = low;
  parameter.high = high;
  return parameter;
}

/// One of the words in `choices`, separated by '|'.
constexpr CodecParameter ChoiceParameter(absl::string_view name,
                                         absl::string_view default_text,
                                         absl::string_view choices,
                                         absl::string_view summary) {
  CodecParameter parameter =
      ParameterOf(CodecParameter::Kind::kChoice, name, default_text, summary);
  parameter.choices = choices;
  return parameter;
}

/// Another codec.
constexpr CodecParameter InnerCodecParameter(absl::string_view name,
                                             absl::string_view default_text,
                                             absl::string_view summary) {
  return ParameterOf(CodecParameter::Kind::kCodec, name, default_text, summary);
}

/// An extent of the tensor, the last one for `from_last` = 1; 0 where it is not
/// known (BindTensorShape). `used_by`: see CodecParameter::extent_used_by.
constexpr CodecParameter ExtentParameter(absl::string_view name, int from_last,
                                         absl::string_view summary,
                                         absl::string_view used_by = "") {
  CodecParameter parameter =
      IntegerParameter(name, "0", 0, int64_t{1} << 31, summary);
  parameter.extent_from_last = from_last;
  parameter.extent_used_by = used_by;
  return parameter;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_PARAMETERS_H_
