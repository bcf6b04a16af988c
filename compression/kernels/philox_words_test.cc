#include "compression/kernels/philox_words.h"

#include "compression/kernels/vector_targets_for_test.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

TEST(PhiloxWordsTest, ElementsTakeTheWordsOfTheirCounters) {
  const RandomKey key{0x123456789ABCDEFu, 7, 8, 9, 1};
  ForEachVectorTarget([&] {
    ElementWords words(key);
    for (uint32_t element = 0; element < 1000; ++element) {
      const uint32_t counter = element / 64 * 16 + element % 16;
      const PhiloxBlock block =
          Philox4x32(key.PhiloxCounter(counter), key.PhiloxKey());
      ASSERT_EQ(words.Next(), block[element % 64 / 16]) << element;
    }
  });
}

}  // namespace
}  // namespace deltapipe
