// The header of a safetensors file: what base/safetensors.h and
// base/safetensors_stream.h have in common, used by them alone.
//
// Trusts nothing: offsets that overlap, leave holes, exceed the file or
// disagree with shape and type are errors that name the tensor. Pure functions;
// errors are INVALID_ARGUMENT and leave naming the file to the caller.
#ifndef DELTAPIPE_BASE_SAFETENSORS_HEADER_H_
#define DELTAPIPE_BASE_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/tensor_view.h"

namespace deltapipe {

/// Little-endian length of the header, before it.
inline constexpr int64_t kSafetensorsLengthBytes = 8;

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kFloat32;
  Shape shape;
  int64_t begin = 0;  // offset of the first byte after the header
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
  int64_t data_offset = 0;  // in the file
};

/// "BF16".
const char* SafetensorsTypeName(DType dtype);

/// The length of the header's text, read off the file's first bytes.
absl::StatusOr<int64_t> SafetensorsHeaderLength(
    absl::Span<const uint8_t> prefix, int64_t file_bytes);
/// `data_bytes`: what the file has after the header.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text,
                                                         int64_t data_bytes);

/// Positions in `dtypes` in the order of a file's bytes: wide types first, so
/// that every tensor is aligned to its own type, and else as given.
std::vector<size_t> SafetensorsOrder(const std::vector<DType>& dtypes);
/// Length and header of `entries`, which are in the order of their bytes; sets
/// their begin and end.
absl::StatusOr<std::string> FormatSafetensorsHeader(
    const std::map<std::string, std::string>& metadata,
    std::vector<SafetensorsEntry>* entries);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_SAFETENSORS_HEADER_H_
