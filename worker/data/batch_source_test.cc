#include "worker/data/batch_source.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

std::string WriteText(int64_t size) {
  std::string text;
  for (int64_t i = 0; i < size; ++i) {
    text.push_back(static_cast<char>('a' + (i * i + i / 7) % 26));
  }
  const std::string path = ::testing::TempDir() + "/batch_source_test.txt";
  EXPECT_TRUE(WriteFileAtomically(path, text).ok());
  return path;
}

BatchSourceOptions Options(int64_t slots) {
  BatchSourceOptions options;
  options.path = WriteText(10000);
  options.context = 16;
  options.microbatch = 2;
  options.num_slots = slots;
  options.validation = 0.1;
  options.seed = 5;
  return options;
}

std::multiset<uint64_t> Keys(BatchSource& source, int64_t step, int64_t slots) {
  std::multiset<uint64_t> keys;
  for (int64_t slot = 0; slot < slots; ++slot) {
    for (const BoundarySample& sample : source.Train(step, slot).samples) {
      keys.insert(sample.key);
    }
  }
  return keys;
}

TEST(BatchSourceTest, TargetsAreTheTokensOneByteLater) {
  auto source = BatchSource::Create(Options(4));
  ASSERT_TRUE(source.ok()) << source.status();

  const Microbatch microbatch = (*source)->Train(0, 1);

  ASSERT_EQ(microbatch.tokens.size(), 32);
  for (size_t i = 0; i + 1 < 16; ++i) {
    EXPECT_EQ(microbatch.tokens[i + 1], microbatch.targets[i]);
  }
}

TEST(BatchSourceTest, AnEpochVisitsEachSampleAtMostOnceAndNearlyAll) {
  constexpr int64_t kSlots = 4;
  auto source = BatchSource::Create(Options(kSlots));
  ASSERT_TRUE(source.ok()) << source.status();

  std::set<uint64_t> seen;
  size_t visits = 0;
  for (int64_t step = 0; step < (*source)->steps_per_epoch(); ++step) {
    for (uint64_t key : Keys(**source, step, kSlots)) {
      seen.insert(key);
      ++visits;
    }
  }

  EXPECT_EQ(seen.size(), visits);
  EXPECT_GT(static_cast<int64_t>(visits),
            (*source)->num_train_samples() - kSlots * 2 - kSlots);
}

TEST(BatchSourceTest, ASampleStaysWithItsSlotAndEpochsDiffer) {
  constexpr int64_t kSlots = 4;
  auto source = BatchSource::Create(Options(kSlots));
  ASSERT_TRUE(source.ok()) << source.status();

  std::map<uint64_t, int64_t> owner;
  bool order_differs = false;
  const int64_t rounds = (*source)->steps_per_epoch();
  for (int64_t step = 0; step < 3 * rounds; ++step) {
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      const Microbatch microbatch = (*source)->Train(step, slot);
      for (const BoundarySample& sample : microbatch.samples) {
        const auto inserted = owner.emplace(sample.key, slot);
        EXPECT_EQ(inserted.first->second, slot);
      }
      order_differs |= microbatch.samples[0].key !=
                       (*source)->Train(step % rounds, slot).samples[0].key;
    }
  }
  EXPECT_TRUE(order_differs);
}

TEST(BatchSourceTest, ThePositionAloneDecides) {
  auto forward = BatchSource::Create(Options(4));
  auto jumping = BatchSource::Create(Options(4));
  ASSERT_TRUE(forward.ok() && jumping.ok());

  for (int64_t step = 0; step < 50; ++step) (*forward)->Train(step, 2);

  EXPECT_EQ((*forward)->Train(123, 2).tokens, (*jumping)->Train(123, 2).tokens);
}

TEST(BatchSourceTest, ValidationIsHeldOutAndWhole) {
  auto source = BatchSource::Create(Options(4));
  ASSERT_TRUE(source.ok()) << source.status();

  int64_t samples = 0;
  for (int64_t i = 0; i < (*source)->num_validation_microbatches(); ++i) {
    samples += static_cast<int64_t>((*source)->Validation(i).samples.size());
  }

  EXPECT_EQ(samples, (1000 - 1) / 16);
  EXPECT_LE((*source)->num_train_samples() * 16 + 1, 9000);
}

TEST(BatchSourceTest, TooLittleDataNamesBothNumbers) {
  BatchSourceOptions options = Options(4);
  options.limit_bytes = 60;

  const auto source = BatchSource::Create(options);

  EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(source.status().message()),
              HasSubstr("has 3 training samples of 16 bytes, but one step "
                        "takes 8"));
}

TEST(BatchSourceTest, AMissingFileIsNamed) {
  BatchSourceOptions options = Options(4);
  options.path = "/nowhere/text.txt";

  const auto source = BatchSource::Create(options);

  EXPECT_EQ(source.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(source.status().message()),
              HasSubstr("/nowhere/text.txt"));
}

TEST(BatchSourceTest, SyntheticSamplesHaveKeysWithoutBytes) {
  BatchSourceOptions options = Options(4);
  options.path.clear();
  options.synthetic_samples = 32;
  auto source = BatchSource::Create(options);
  ASSERT_TRUE(source.ok()) << source.status();

  EXPECT_EQ((*source)->steps_per_epoch(), 4);
  EXPECT_TRUE((*source)->Train(0, 0).tokens.empty());
  EXPECT_EQ((*source)->num_validation_microbatches(), 0);
}

}  // namespace
}  // namespace deltapipe
