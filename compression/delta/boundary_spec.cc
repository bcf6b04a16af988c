#include "compression/delta/boundary_spec.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"

namespace deltapipe {
namespace {

/// Gives an int(...) that names no rounding the stochastic one: gradients of
/// activations are compressed without history, so their codec must be unbiased.
void RoundStochastically(const CodecInfo& info, CodecSpec* spec) {
  if (spec->name != "int") return;
  size_t num_positional = 0;
  for (const CodecArgument& argument : spec->arguments) {
    if (argument.name == "round") return;
    if (argument.name.empty()) ++num_positional;
  }
  const auto round = std::find_if(
      info.parameters.begin(), info.parameters.end(),
      [](const CodecParameter& known) { return known.name == "round"; });
  if (static_cast<size_t>(round - info.parameters.begin()) < num_positional) {
    return;
  }
  CodecArgument argument;
  argument.name = "round";
  argument.value.name = "stochastic";
  argument.value.source = spec->source;
  argument.value.column = argument.column = spec->column;
  spec->arguments.push_back(std::move(argument));
}

absl::StatusOr<std::unique_ptr<Codec>> MakeStoreCodec(const CodecSpec& spec) {
  DP_ASSIGN_OR_RETURN(std::unique_ptr<Codec> codec, MakeCodecFromSpec(spec));
  const Codec::Traits traits = codec->traits();
  if (!traits.has_fixed_size || traits.is_stochastic || traits.is_random) {
    return CodecSpecError(
        spec,
        absl::StrCat("store: expected a codec of a fixed size that rounds to "
                     "nearest, since equal values must be kept as equal bits, "
                     "got ",
                     codec->text()));
  }
  return codec;
}

}  // namespace

int64_t BoundarySpec::RecordBytes(int64_t num_elements) const {
  if (kind == Kind::kStateless) return 0;
  return store_codec != nullptr
             ? store_codec->MaxPayloadBytes(num_elements)
             : num_elements * (store == Store::kBFloat16 ? 2 : 4);
}

bool BoundarySpec::Remembers() const {
  return kind != Kind::kStateless || codec->traits().has_memory;
}

bool BoundarySpec::KeepsAs(const BoundarySpec& other) const {
  const auto form = [](const BoundarySpec& spec) {
    return spec.store_codec == nullptr ? "" : spec.store_codec->text();
  };
  return kind == other.kind && store == other.store &&
         form(*this) == form(other);
}

std::string BoundarySpec::Text() const {
  const std::string stored = store_codec == nullptr
                                 ? ""
                                 : absl::StrCat(",store=", store_codec->text());
  switch (kind) {
    case Kind::kStateless:
      return codec->text();
    case Kind::kDelta:
      return absl::StrCat("delta(", codec->text(), ",first=", first->text(),
                          store == Store::kFloat32 ? ",store=fp32" : stored,
                          ")");
    case Kind::kErrorFeedback:
      return absl::StrCat("ef(", codec->text(), stored, ")");
  }
  return "";
}

absl::StatusOr<BoundarySpec> ParseBoundarySpec(absl::string_view text,
                                               uint32_t direction) {
  DP_ASSIGN_OR_RETURN(CodecSpec parsed, ParseCodecSpec(text));
  DP_ASSIGN_OR_RETURN(const CodecInfo* info, FindCodec(parsed));
  BoundarySpec spec;
  if (!info->is_wrapper()) {
    if (direction == 1) {
      RoundStochastically(*info, &parsed);
    }
    DP_ASSIGN_OR_RETURN(spec.codec, MakeCodecFromSpec(parsed));
    return spec;
  }
  DP_ASSIGN_OR_RETURN(const CodecArguments arguments,
                      ReadCodecArguments(parsed, *info));
  DP_ASSIGN_OR_RETURN(spec.codec, MakeCodecFromSpec(arguments.Codec("codec")));
  if (parsed.name == "delta") {
    spec.kind = BoundarySpec::Kind::kDelta;
    DP_ASSIGN_OR_RETURN(spec.first,
                        MakeCodecFromSpec(arguments.Codec("first")));
  } else if (parsed.name == "ef") {
    spec.kind = BoundarySpec::Kind::kErrorFeedback;
  } else {
    return CodecSpecError(parsed, "it cannot be used at a stage boundary");
  }
  if (!arguments.IsWord("store")) {
    DP_ASSIGN_OR_RETURN(spec.store_codec,
                        MakeStoreCodec(arguments.Codec("store")));
    spec.store = BoundarySpec::Store::kCodec;
  } else if (arguments.Word("store") == "fp32") {
    spec.store = BoundarySpec::Store::kFloat32;
  }
  return spec;
}

}  // namespace deltapipe
