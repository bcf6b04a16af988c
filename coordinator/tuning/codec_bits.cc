#include "coordinator/tuning/codec_bits.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"
#include "compression/delta/boundary_spec.h"

namespace deltapipe {
namespace {

/// The innermost codec of `spec`, which is known to be one of a boundary.
absl::StatusOr<CodecSpec*> InnermostCodec(CodecSpec* spec) {
  DP_ASSIGN_OR_RETURN(const CodecInfo* info, FindCodec(*spec));
  if (!info->is_wrapper()) return spec;
  for (CodecArgument& argument : spec->arguments) {
    if (argument.name.empty() || argument.name == "codec") {
      return &argument.value;
    }
  }
  return CodecSpecError(*spec, "expected a codec in it");
}

absl::StatusOr<CodecArguments> ArgumentsOf(const CodecSpec& spec) {
  DP_ASSIGN_OR_RETURN(const CodecInfo* info, FindCodec(spec));
  return CodecArguments::Read(spec, info->parameters);
}

absl::StatusOr<std::string> IntText(const CodecSpec& former, int bits,
                                    int64_t block) {
  std::string text = absl::StrCat("int(", bits);
  if (former.name == "int") {
    DP_ASSIGN_OR_RETURN(const CodecArguments arguments, ArgumentsOf(former));
    if (block == 0) block = arguments.Integer("block");
    absl::StrAppend(&text, ",round=", arguments.Word("round"),
                    ",clip=", arguments.Word("clip"));
  }
  if (block > 0) absl::StrAppend(&text, ",block=", block);
  return text + ")";
}

}  // namespace

absl::StatusOr<std::string> CanonicalBoundaryCodec(const std::string& codec,
                                                   bool is_gradient) {
  DP_ASSIGN_OR_RETURN(const BoundarySpec spec,
                      ParseBoundarySpec(codec, is_gradient ? 1 : 0));
  return spec.Text();
}

absl::StatusOr<CodecBits> ReadCodecBits(const std::string& codec,
                                        bool is_gradient) {
  DP_ASSIGN_OR_RETURN(const std::string text,
                      CanonicalBoundaryCodec(codec, is_gradient));
  DP_ASSIGN_OR_RETURN(CodecSpec spec, ParseCodecSpec(text));
  DP_ASSIGN_OR_RETURN(const CodecSpec* inner, InnermostCodec(&spec));
  if (inner->name == "none") return CodecBits{32, 0};
  if (inner->name == "cast") return CodecBits{16, 0};
  DP_ASSIGN_OR_RETURN(const CodecArguments arguments, ArgumentsOf(*inner));
  if (inner->name == "int") {
    return CodecBits{static_cast<int>(arguments.Integer("bits")),
                     arguments.Integer("block")};
  }
  if (inner->name == "sign") return CodecBits{1, arguments.Integer("block")};
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<Codec> made,
                      MakeCodecFromSpec(*inner));
  const double bits = made->traits().bits_per_element;
  return CodecBits{static_cast<int>(std::clamp(std::round(bits), 1.0, 32.0)), 0,
                   /*is_nominal=*/true};
}

absl::StatusOr<std::string> WithBits(const std::string& codec, bool is_gradient,
                                     int bits, int64_t block) {
  DP_ASSIGN_OR_RETURN(const std::string canonical,
                      CanonicalBoundaryCodec(codec, is_gradient));
  DP_ASSIGN_OR_RETURN(CodecSpec spec, ParseCodecSpec(canonical));
  DP_ASSIGN_OR_RETURN(CodecSpec * inner, InnermostCodec(&spec));
  std::string text = bits > 16 ? "none" : "cast(bf16)";
  if (bits <= 8) {
    DP_ASSIGN_OR_RETURN(text, IntText(*inner, bits, block));
  }
  DP_ASSIGN_OR_RETURN(*inner, ParseCodecSpec(text));
  return CanonicalBoundaryCodec(CodecSpecText(spec), is_gradient);
}

}  // namespace deltapipe
