// The list of all codecs, from codecs.def: what the command line prints, the
// conformance suite and the benchmarks run over, and MakeCodec looks names up
// in.
//
//   for (const CodecInfo& info : AllCodecs()) Print(info.name, info.summary);
//
// Immutable after the first use; thread-safe.
#ifndef DELTAPIPE_COMPRESSION_CODEC_REGISTRY_H_
#define DELTAPIPE_COMPRESSION_CODEC_REGISTRY_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

struct CodecInfo {
  using Maker = absl::StatusOr<std::unique_ptr<Codec>> (*)(
      const CodecArguments& arguments);

  absl::string_view name;
  absl::string_view summary;
  /// The paper or the standard that it comes from.
  absl::string_view source;
  absl::Span<const CodecParameter> parameters;
  /// Null for a wrapper: it keeps state, lives in compression/delta and is made
  /// with a boundary, not by MakeCodec.
  Maker make = nullptr;

  bool is_wrapper() const { return make == nullptr; }
};

/// In the order of codecs.def.
const std::vector<CodecInfo>& AllCodecs();

/// INVALID_ARGUMENT with the known names and the nearest one if `spec` names
/// none of them.
absl::StatusOr<const CodecInfo*> FindCodec(const CodecSpec& spec);

/// The arguments of `spec`, which names `info`. INVALID_ARGUMENT as
/// CodecArguments::Read, and for a wrapper where a codec without state is
/// expected, with the nearest text without it: no codec keeps another's state.
absl::StatusOr<CodecArguments> ReadCodecArguments(const CodecSpec& spec,
                                                  const CodecInfo& info);

/// `text` with the parameters that are extents of the tensor (the length of a
/// row, say) and were left at 0 set to those of `shape`, slowest extent first,
/// nested codecs included; a tensor of too few extents leaves them at 0.
/// INVALID_ARGUMENT as MakeCodec.
absl::StatusOr<std::string> BindTensorShape(absl::string_view text,
                                            absl::Span<const int64_t> shape);

/// A text that names `info` with its defaults and, where a parameter
/// has no default, its smallest value or first choice: "int(1)", "cast(bf16)".
std::string ExampleCodecText(const CodecInfo& info);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODEC_REGISTRY_H_
