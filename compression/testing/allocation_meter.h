// Counts what a thread allocates: in programs that link malloc_counter, or are
// built with a sanitizer; elsewhere it counts nothing. For tests of code that
// must not allocate, fuzzers and tests of what reads foreign bytes.
//
//   const AllocationMeter meter;
//   codec->Decode(payload, out).IgnoreError();
//   if (meter.bytes() > limit) ...
#ifndef DELTAPIPE_COMPRESSION_TESTING_ALLOCATION_METER_H_
#define DELTAPIPE_COMPRESSION_TESTING_ALLOCATION_METER_H_

#include <cstddef>
#include <cstdint>

// Of the sanitizers' runtime (sanitizer/allocator_interface.h); null without.
extern "C" int __sanitizer_install_malloc_and_free_hooks(
    void (*on_malloc)(const volatile void*, size_t),
    void (*on_free)(const volatile void*)) __attribute__((weak));

// Of malloc_counter.cc: what this thread has allocated so far; null without.
extern "C" int64_t deltapipe_allocated_bytes() __attribute__((weak));

namespace deltapipe {

/// One thread's allocations since construction; what was freed counts, too.
class AllocationMeter {
 public:
  AllocationMeter() : begin_(Total()) {}
  int64_t bytes() const { return Total() - begin_; }

  /// Whether anything is counted in this program.
  static bool is_counting() {
    return deltapipe_allocated_bytes != nullptr ||
           __sanitizer_install_malloc_and_free_hooks != nullptr;
  }

 private:
  static int64_t& Counter() {
    static thread_local int64_t bytes = 0;
    return bytes;
  }
  static int64_t Total() {
    if (deltapipe_allocated_bytes != nullptr) {
      return deltapipe_allocated_bytes();
    }
    static const int installed =
        __sanitizer_install_malloc_and_free_hooks == nullptr
            ? 0
            : __sanitizer_install_malloc_and_free_hooks(
                  [](const volatile void*, size_t size) {
                    Counter() += static_cast<int64_t>(size);
                  },
                  [](const volatile void*) {});
    (void)installed;
    return Counter();
  }

  const int64_t begin_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_TESTING_ALLOCATION_METER_H_
