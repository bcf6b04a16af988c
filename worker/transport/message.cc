#include "worker/transport/message.h"

#include <sys/mman.h>

#include <new>

namespace deltapipe {
namespace {

// malloc takes blocks of this size from the system each time and gives them
// back, so that every page of every message is touched for the first time.
// Touching them 2 MiB at once costs a tenth.
constexpr int64_t kHugePagesFrom = int64_t{32} << 20;
constexpr uintptr_t kHugePageBytes = uintptr_t{2} << 20;

void AdviseHugePages(Buffer* buffer) {
  const auto begin = reinterpret_cast<uintptr_t>(buffer->data());
  const uintptr_t end = begin + static_cast<uintptr_t>(buffer->size());
  const uintptr_t first =
      (begin + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  const uintptr_t last = end / kHugePageBytes * kHugePageBytes;
  if (first >= last) return;
  // Only a hint: a system without huge pages refuses it.
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

}  // namespace

absl::StatusOr<Buffer> AllocateMessage(int64_t size) {
  try {
    Buffer buffer(size);
    if (size >= kHugePagesFrom) AdviseHugePages(&buffer);
    return buffer;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a message of ", size, " bytes"));
  }
}

}  // namespace deltapipe
