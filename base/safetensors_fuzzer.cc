// Feeds bytes to both readers of safetensors, which must agree. Each input is
// also tried as a header before some bytes of data.
//
//   bazel run --config=fuzz //base:safetensors_fuzzer
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/safetensors.h"
#include "base/safetensors_stream.h"

namespace {

/// The path of a file in memory with these bytes, made anew each time.
const std::string& FileOf(const std::vector<uint8_t>& bytes) {
  static const int fd = ::memfd_create("input", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  if (fd < 0 || ::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, bytes.data(), bytes.size(), 0) !=
          static_cast<ssize_t>(bytes.size())) {
    std::abort();
  }
  return path;
}

void Parse(const std::vector<uint8_t>& bytes) {
  const std::string& path = FileOf(bytes);
  const auto file = deltapipe::SafetensorsFile::Parse(bytes, path);
  const auto reader = deltapipe::SafetensorsReader::Open(path);
  if (file.status() != reader.status()) std::abort();
  if (!file.ok()) return;
  if (file->metadata() != reader->metadata()) std::abort();
  for (const deltapipe::SafetensorsEntry& entry : file->entries()) {
    const auto view = file->Tensor(entry.name);
    if (!view.ok()) std::abort();
    std::vector<uint8_t> read(static_cast<size_t>(view->num_bytes()));
    if (!reader->ReadTensor(entry.name, absl::MakeSpan(read)).ok() ||
        (!read.empty() &&
         std::memcmp(read.data(), view->data(), read.size()) != 0)) {
      std::abort();
    }
    file->FloatValues(entry.name).status().IgnoreError();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Parse(std::vector<uint8_t>(data, data + size));
  for (const size_t num_data : {size_t{0}, size_t{4}, size_t{24}}) {
    std::vector<uint8_t> bytes(8 + size + num_data, 7);
    for (size_t i = 0; i < 8; ++i) {
      bytes[i] = static_cast<uint8_t>(uint64_t{size} >> (8 * i));
    }
    if (size > 0) std::memcpy(&bytes[8], data, size);
    Parse(bytes);
  }
  return 0;
}
