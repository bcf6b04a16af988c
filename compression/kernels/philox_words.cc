#include "compression/kernels/philox_words.h"

// SSE4, AVX2 and AVX-512 cover today's machines; fewer targets build faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/kernels/philox_words.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// Highway's own order: after highway.h.
#include "compression/kernels/philox_vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deltapipe {
namespace HWY_NAMESPACE {

void Fill(const RandomKey& key, uint32_t first_counter, uint32_t* words) {
#if HWY_TARGET == HWY_SCALAR
  for (uint32_t lane = 0; lane < 16; ++lane) {
    const PhiloxBlock block =
        Philox4x32(key.PhiloxCounter(first_counter + lane), key.PhiloxKey());
    for (uint32_t j = 0; j < 4; ++j) words[16 * j + lane] = block[j];
  }
#else
  PhiloxWords(key, first_counter, words);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace deltapipe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deltapipe {

HWY_EXPORT(Fill);

void FillPhiloxWords(const RandomKey& key, uint32_t first_counter,
                     uint32_t* words) {
  HWY_DYNAMIC_DISPATCH(Fill)(key, first_counter, words);
}

}  // namespace deltapipe
#endif  // HWY_ONCE
