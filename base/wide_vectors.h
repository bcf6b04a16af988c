// WithWideVectors: runs a loop in the widest vectors that the processor has and
// a compiler's vectoriser is let use of its own.
//
//   WithWideVectors([=] {
//     for (int64_t i = 0; i < count; ++i) m[i] = beta * m[i] + g[i];
//   });
//
// Numbers and pointers are captured by value, so that the compiler need not
// expect that a store changes them.
//
// The program itself is built for any x86-64 (SSE2); here the body is compiled
// a second time, for AVX2, with all that it calls inline. Both have the same
// bits: nothing is contracted (-ffp-contract=off) or reordered. What the body
// calls in another file stays as it is.
//
// The kernels of compression/delta choose among widths by themselves: through
// this they take 15 to 20 % longer.
#ifndef DELTAPIPE_BASE_WIDE_VECTORS_H_
#define DELTAPIPE_BASE_WIDE_VECTORS_H_

#include <atomic>

namespace deltapipe {
namespace wide_vectors_internal {

inline std::atomic<bool> is_narrow{false};

inline bool IsWide() {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  return has_avx2 && !is_narrow.load(std::memory_order_relaxed);
#else
  return false;
#endif
}

#if defined(__x86_64__)
template <typename Body>
__attribute__((target("avx2"), flatten)) void RunWide(Body body) {
  body();
}
#endif

}  // namespace wide_vectors_internal

template <typename Body>
void WithWideVectors(const Body& body) {
#if defined(__x86_64__)
  if (wide_vectors_internal::IsWide()) {
    wide_vectors_internal::RunWide(body);
    return;
  }
#endif
  body();
}

/// While one lives, all threads do without.
class NarrowVectorsForTesting {
 public:
  NarrowVectorsForTesting() { wide_vectors_internal::is_narrow = true; }
  ~NarrowVectorsForTesting() { wide_vectors_internal::is_narrow = false; }
  NarrowVectorsForTesting(const NarrowVectorsForTesting&) = delete;
  NarrowVectorsForTesting& operator=(const NarrowVectorsForTesting&) = delete;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_WIDE_VECTORS_H_
