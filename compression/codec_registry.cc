#include "compression/codec_registry.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace deltapipe {

#define DELTAPIPE_CODEC(Identifier, name, summary, source)        \
  absl::Span<const CodecParameter> Identifier##Parameters();      \
  absl::StatusOr<std::unique_ptr<Codec>> Make##Identifier##Codec( \
      const CodecArguments& arguments);
#define DELTAPIPE_WRAPPER(Identifier, name, summary, source) \
  absl::Span<const CodecParameter> Identifier##Parameters();
#include "compression/codecs.def"
#undef DELTAPIPE_CODEC
#undef DELTAPIPE_WRAPPER

const std::vector<CodecInfo>& AllCodecs() {
  static const std::vector<CodecInfo>* const codecs =
      new std::vector<CodecInfo>{
#define DELTAPIPE_CODEC(Identifier, name, summary, source) \
  {name, summary, source, Identifier##Parameters(), Make##Identifier##Codec},
#define DELTAPIPE_WRAPPER(Identifier, name, summary, source) \
  {name, summary, source, Identifier##Parameters(), nullptr},
#include "compression/codecs.def"
#undef DELTAPIPE_CODEC
#undef DELTAPIPE_WRAPPER
      };
  return *codecs;
}

absl::StatusOr<const CodecInfo*> FindCodec(const CodecSpec& spec) {
  std::vector<absl::string_view> names;
  for (const CodecInfo& info : AllCodecs()) {
    if (info.name == spec.name) return &info;
    names.push_back(info.name);
  }
  return CodecSpecError(
      spec, absl::StrCat("unknown codec '", spec.name, "': expected one of ",
                         absl::StrJoin(names, ", "),
                         NearestNameHint(spec.name, names)));
}

absl::StatusOr<std::unique_ptr<Codec>> MakeCodecFromSpec(
    const CodecSpec& spec) {
  DP_ASSIGN_OR_RETURN(const CodecInfo* info, FindCodec(spec));
  if (info->is_wrapper()) {
    return CodecSpecError(
        spec, absl::StrCat("'", spec.name,
                           "' keeps state and can only be the outermost codec "
                           "of a stage boundary"));
  }
  DP_ASSIGN_OR_RETURN(const CodecArguments arguments,
                      CodecArguments::Read(spec, info->parameters));
  return info->make(arguments);
}

absl::StatusOr<std::unique_ptr<Codec>> MakeCodec(absl::string_view text) {
  DP_ASSIGN_OR_RETURN(const CodecSpec spec, ParseCodecSpec(text));
  return MakeCodecFromSpec(spec);
}

std::string ExampleCodecText(const CodecInfo& info) {
  std::vector<std::string> arguments;
  for (const CodecParameter& parameter : info.parameters) {
    if (!parameter.default_text.empty()) continue;
    switch (parameter.kind) {
      case CodecParameter::Kind::kInteger:
        arguments.push_back(absl::StrCat(parameter.min));
        break;
      case CodecParameter::Kind::kChoice:
        arguments.push_back(std::vector<std::string>(
            absl::StrSplit(parameter.choices, '|'))[0]);
        break;
      case CodecParameter::Kind::kCodec:
        arguments.push_back("none");
        break;
    }
  }
  if (arguments.empty()) return std::string(info.name);
  return absl::StrCat(info.name, "(", absl::StrJoin(arguments, ","), ")");
}

}  // namespace deltapipe
