// One codec object used by several threads at once: payloads and values are
// those of one thread, byte by byte.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/thread.h"
#include "compression/codec.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/codec_settings.h"
#include "compression/testing/round_trip.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr size_t kNumThreads = 4;

struct Work {
  std::vector<float> in;
  RandomKey key;
  std::vector<uint8_t> payload;
  std::vector<float> out;
};

// Tensors of several sizes and kinds, under keys of their own.
std::vector<Work> AllWork(const Codec& codec) {
  std::vector<Work> all;
  for (const size_t count : {1, 100, 1001, 4096, 20011}) {
    for (const TestData data : {TestData::kNormal, TestData::kHeavyTailed}) {
      Work work;
      work.in = MakeTestData(data, count, 21);
      work.key = RandomKey{99, 1, static_cast<uint32_t>(all.size()), 2, 0};
      work.payload = EncodeForTest(codec, work.in, {work.key});
      work.out = DecodeForTest(codec, work.payload, count);
      all.push_back(std::move(work));
    }
  }
  return all;
}

class CodecThreadsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(CodecThreadsTest, PayloadsAreThoseOfOneThread) {
  const auto codec = MakeForTest(GetParam());
  ASSERT_NE(codec, nullptr);
  const std::vector<Work> all = AllWork(*codec);
  std::vector<int> num_same(kNumThreads);

  {
    std::vector<Thread> threads;
    for (size_t t = 0; t < kNumThreads; ++t) {
      threads.emplace_back(absl::StrCat("codec ", t), [&, t] {
        // From a place of its own on, so that sizes meet.
        for (size_t i = 0; i < 2 * all.size(); ++i) {
          const Work& work = all[(i + 3 * t) % all.size()];
          const std::vector<uint8_t> payload =
              EncodeForTest(*codec, work.in, {work.key});
          const std::vector<float> out =
              DecodeForTest(*codec, payload, work.in.size());
          num_same[t] += payload == work.payload && out == work.out ? 1 : 0;
        }
      });
    }
  }

  for (const int same : num_same) {
    EXPECT_EQ(same, static_cast<int>(2 * all.size()));
  }
}

INSTANTIATE_TEST_SUITE_P(AllCodecs, CodecThreadsTest,
                         ::testing::ValuesIn(AllExampleCodecs()),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return TestNameOfCodec(info.param);
                         });

}  // namespace
}  // namespace deltapipe
