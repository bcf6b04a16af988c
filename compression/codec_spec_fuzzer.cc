// Feeds texts to the parser of codec specs, to MakeCodec and to what binds the
// shape of a tensor.
//
//   bazel run --config=fuzz //compression:codec_spec_fuzzer
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"

namespace {

using deltapipe::MakeCodec;

// Errors are one sentence of INVALID_ARGUMENT.
void CheckError(const absl::Status& status) {
  if (!absl::IsInvalidArgument(status) || status.message().empty() ||
      status.message().find('\n') != absl::string_view::npos) {
    std::abort();
  }
}

// The canonical text means the same codec, and is its own canonical text.
void CheckCodec(const std::string& text) {
  const auto codec = MakeCodec(text);
  if (!codec.ok()) return CheckError(codec.status());
  const std::string canonical = (*codec)->text();
  const auto again = MakeCodec(canonical);
  if (!again.ok() || (*again)->text() != canonical) std::abort();
  for (const int64_t count : {0, 1, 1000}) {
    const int64_t bytes = (*codec)->MaxPayloadBytes(count);
    if (bytes < 0 || bytes != (*again)->MaxPayloadBytes(count)) std::abort();
  }
  const auto bound = deltapipe::BindTensorShape(text, {3, 40, 50});
  if (!bound.ok() || !MakeCodec(*bound).ok()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto spec = deltapipe::ParseCodecSpec(text);
  if (!spec.ok()) {
    CheckError(spec.status());
    return 0;
  }
  const std::string written = deltapipe::CodecSpecText(*spec);
  const auto reread = deltapipe::ParseCodecSpec(written);
  if (!reread.ok() || deltapipe::CodecSpecText(*reread) != written) {
    std::abort();
  }
  CheckCodec(text);
  return 0;
}
