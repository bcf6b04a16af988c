// The C library's allocator, with a count of the bytes that each thread has
// asked for: what AllocationMeter reads. C++'s operator new and third-party
// libraries end here, too. A test has it by linking it.
//
// A sanitizer has an allocator of its own, which counts by itself.
#include <cerrno>
#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DP_ALLOCATOR_IS_TAKEN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define DP_ALLOCATOR_IS_TAKEN
#endif
#endif

#if !defined(DP_ALLOCATOR_IS_TAKEN)
namespace {

thread_local int64_t allocated_bytes = 0;

void Count(size_t size) { allocated_bytes += static_cast<int64_t>(size); }

}  // namespace

extern "C" {

// glibc's own, by the names that are left to who replaces the others.
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* data, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

int64_t deltapipe_allocated_bytes() { return allocated_bytes; }

void* malloc(size_t size) {
  Count(size);
  return __libc_malloc(size);
}

void* calloc(size_t count, size_t size) {
  Count(count * size);
  return __libc_calloc(count, size);
}

void* realloc(void* data, size_t size) {
  Count(size);
  return __libc_realloc(data, size);
}

void* memalign(size_t alignment, size_t size) {
  Count(size);
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  return memalign(alignment, size);
}

int posix_memalign(void** data, size_t alignment, size_t size) {
  *data = memalign(alignment, size);
  return *data == nullptr ? ENOMEM : 0;
}

}  // extern "C"
#endif
