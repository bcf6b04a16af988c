#include "compression/cuda/random_words.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

#include "base/philox.h"
#include "compression/kernels/random_stream.h"

namespace deltapipe {
namespace cuda {
namespace {

TEST(RandomWordsTest, EqualPhiloxOfTheHost) {
  const uint32_t seed = 20260101;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 1000; ++i) {
    const RandomKey key{random(), static_cast<uint32_t>(random()),
                        static_cast<uint32_t>(random()),
                        static_cast<uint32_t>(random()),
                        static_cast<uint32_t>(random() % 3)};
    const uint32_t counter = static_cast<uint32_t>(random());
    const uint32_t stream = i % 256;
    const RandomKey of_stream = StreamKey(key, stream);
    const PhiloxBlock expected =
        Philox4x32(of_stream.PhiloxCounter(counter), of_stream.PhiloxKey());

    const FourWords words = RandomWords(key).Block(counter, stream);

    for (int j = 0; j < 4; ++j) ASSERT_EQ(words.word[j], expected[j]) << i;
    EXPECT_EQ(UniformOf(words.word[0]), UniformFloat(expected[0]));
  }
}

}  // namespace
}  // namespace cuda
}  // namespace deltapipe
