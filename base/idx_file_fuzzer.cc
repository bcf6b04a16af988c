// Any bytes are a file of images, or an error: never a crash, and never more
// memory than there are bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/idx_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const int num_extents : {1, 3}) {
    for (const int64_t max_items : {int64_t{0}, int64_t{2}, INT64_MAX}) {
      size_t position = 0;
      const auto file = deltapipe::ReadIdx(
          [&](absl::Span<uint8_t> bytes) -> absl::StatusOr<size_t> {
            const size_t count = std::min(bytes.size(), size - position);
            std::copy_n(data + position, count, bytes.data());
            position += count;
            return count;
          },
          "fuzz", num_extents, max_items);
      if (!file.ok()) continue;
      const int64_t items = std::min(max_items, file->num_items());
      const auto expected = static_cast<size_t>(items * file->item_bytes());
      if (file->values.size() != expected || expected > size) std::abort();
    }
  }
  return 0;
}
