#include "compression/codec_registry.h"

#include <algorithm>
#include <string>
#include <utility>

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

namespace {

// Gives `parameter` a value, in the place of the argument it has, if any.
void SetArgument(const CodecParameter& parameter, CodecSpec value,
                 absl::Span<const CodecParameter> parameters, CodecSpec* spec) {
  for (size_t i = 0; i < spec->arguments.size(); ++i) {
    CodecArgument& argument = spec->arguments[i];
    if (argument.name == parameter.name ||
        (argument.name.empty() && parameters[i].name == parameter.name)) {
      argument.value = std::move(value);
      return;
    }
  }
  CodecArgument argument;
  argument.name = std::string(parameter.name);
  argument.value = std::move(value);
  spec->arguments.push_back(std::move(argument));
}

}  // namespace

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

namespace {

/// What a wrapper wraps, through all of them; int(4) where that is no codec.
CodecSpec WithoutState(const CodecSpec& spec) {
  CodecSpec inner = spec;
  while (true) {
    const auto info = FindCodec(inner);
    if (!info.ok() || !(*info)->is_wrapper() || inner.arguments.empty()) break;
    inner = CodecSpec(inner.arguments.front().value);
  }
  if (MakeCodecFromSpec(inner).ok()) return inner;
  return *ParseCodecSpec("int(4)");
}

absl::Status CheckInnerCodec(const CodecSpec& spec, const CodecInfo& info,
                             const CodecParameter& parameter,
                             const CodecSpec& inner) {
  const auto found = FindCodec(inner);
  // Unknown names fail where the codec is made.
  if (!found.ok() || !(*found)->is_wrapper()) return absl::OkStatus();
  const CodecSpec nearest = WithoutState(inner);
  CodecSpec whole = spec;
  SetArgument(parameter, nearest, info.parameters, &whole);
  return CodecSpecError(inner,
                        absl::StrCat(parameter.name, ": expected ",
                                     CodecParameterRange(parameter), ", got ",
                                     CodecSpecText(inner), " (the nearest is ",
                                     CodecSpecText(nearest), ", as in ",
                                     CodecSpecText(whole), ")"));
}

}  // namespace

absl::StatusOr<CodecArguments> ReadCodecArguments(const CodecSpec& spec,
                                                  const CodecInfo& info) {
  DP_ASSIGN_OR_RETURN(CodecArguments arguments,
                      CodecArguments::Read(spec, info.parameters));
  for (const CodecParameter& parameter : info.parameters) {
    if (parameter.kind != CodecParameter::Kind::kCodec ||
        arguments.IsWord(parameter.name)) {
      continue;
    }
    DP_RETURN_IF_ERROR(CheckInnerCodec(spec, info, parameter,
                                       arguments.Codec(parameter.name)));
  }
  return arguments;
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
                      ReadCodecArguments(spec, *info));
  return info->make(arguments);
}

namespace {

bool IsExtentUsed(const CodecParameter& extent, const CodecArguments& arguments,
                  absl::Span<const CodecParameter> parameters) {
  if (extent.extent_used_by.empty()) return true;
  const std::vector<absl::string_view> users =
      absl::StrSplit(extent.extent_used_by, '|');
  return std::any_of(
      parameters.begin(), parameters.end(), [&](const CodecParameter& other) {
        return std::find(users.begin(), users.end(), other.name) !=
                   users.end() &&
               arguments.Word(other.name) != other.default_text;
      });
}

absl::Status BindExtents(absl::Span<const int64_t> shape, CodecSpec* spec) {
  DP_ASSIGN_OR_RETURN(const CodecInfo* info, FindCodec(*spec));
  // Checks them, too.
  DP_ASSIGN_OR_RETURN(const CodecArguments arguments,
                      ReadCodecArguments(*spec, *info));
  for (const CodecParameter& parameter : info->parameters) {
    if (parameter.kind == CodecParameter::Kind::kCodec &&
        !arguments.IsWord(parameter.name)) {
      CodecSpec inner = arguments.Codec(parameter.name);
      const std::string text = CodecSpecText(inner);
      DP_RETURN_IF_ERROR(BindExtents(shape, &inner));
      if (CodecSpecText(inner) != text) {
        SetArgument(parameter, std::move(inner), info->parameters, spec);
      }
    }
    const size_t extent = static_cast<size_t>(parameter.extent_from_last);
    if (extent == 0 || extent > shape.size() ||
        arguments.Integer(parameter.name) != 0 ||
        !IsExtentUsed(parameter, arguments, info->parameters)) {
      continue;
    }
    CodecSpec value;
    value.name = absl::StrCat(shape[shape.size() - extent]);
    SetArgument(parameter, std::move(value), info->parameters, spec);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> BindTensorShape(absl::string_view text,
                                            absl::Span<const int64_t> shape) {
  DP_ASSIGN_OR_RETURN(CodecSpec spec, ParseCodecSpec(text));
  DP_RETURN_IF_ERROR(BindExtents(shape, &spec));
  return CodecSpecText(spec);
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
      case CodecParameter::Kind::kNumber:
        arguments.push_back(absl::StrCat((parameter.low + parameter.high) / 2));
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
