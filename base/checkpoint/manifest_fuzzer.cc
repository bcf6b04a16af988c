// Feeds texts to the parser of manifests. Each input is also tried with a
// digest line that fits, or little would get past it.
//
//   bazel run --config=fuzz //base/checkpoint:manifest_fuzzer
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/str_format.h"
#include "base/checkpoint/manifest.h"
#include "base/checksum.h"

namespace {

void Parse(const std::string& text) {
  const auto manifest = deltapipe::ParseManifest(text, "input");
  if (!manifest.ok()) {
    if (!absl::IsDataLoss(manifest.status())) std::abort();
    return;
  }
  // What was read is written and read as the same.
  const std::string again = deltapipe::FormatManifest(*manifest);
  const auto reread = deltapipe::ParseManifest(again, "again");
  if (!reread.ok() || deltapipe::FormatManifest(*reread) != again) std::abort();
  for (const deltapipe::ManifestFile& file : manifest->files) {
    if (file.bytes < 0 || file.name.find('/') != std::string::npos ||
        file.name.find('\0') != std::string::npos ||
        file.name.find("..") != std::string::npos) {
      std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  Parse(text);
  text += ",\n";
  const uint64_t digest = deltapipe::Checksum(
      {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  Parse(text + absl::StrFormat("\"digest\": \"%016x\"\n}\n", digest));
  int64_t step;
  uint64_t generation;
  deltapipe::ParseCheckpointFolderName(text, &step, &generation).IgnoreError();
  return 0;
}
