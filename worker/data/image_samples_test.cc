#include "worker/data/image_samples.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/image_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/batch_source.h"
#include "worker/data/testing_images.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSlots = 2;

BatchSourceOptions Options(int64_t views = 1) {
  BatchSourceOptions options;
  options.path = WriteImages("image_samples_test", 100, 20);
  options.images.emplace();
  options.images->views.count = views;
  options.validation = 0.5;
  options.microbatch = 8;
  options.num_slots = kSlots;
  options.seed = 5;
  return options;
}

std::unique_ptr<BatchSource> Open(const BatchSourceOptions& options) {
  auto source = BatchSource::Create(options);
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

std::string ImageAt(const Microbatch& microbatch, size_t i) {
  const size_t size = microbatch.tokens.size() / microbatch.samples.size();
  return {microbatch.tokens.begin() + static_cast<int64_t>(i * size),
          microbatch.tokens.begin() + static_cast<int64_t>((i + 1) * size)};
}

TEST(ImageSamplesTest, WithoutViewsEachSampleIsTheImageAndItsClass) {
  const auto source = Open(Options());

  std::map<std::string, int> classes;
  for (int64_t step = 0; step < source->steps_per_epoch(); ++step) {
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      const Microbatch batch = source->Train(step, slot);
      ASSERT_EQ(batch.samples.size(), 8);
      ASSERT_EQ(batch.targets.size(), 8);
      ASSERT_EQ(batch.tokens.size(), 8 * kImagePixels);
      for (size_t i = 0; i < 8; ++i) {
        EXPECT_TRUE(classes.emplace(ImageAt(batch, i), batch.targets[i]).second)
            << "an epoch shows an image once";
      }
    }
  }
  EXPECT_EQ(source->num_train_samples(), 100);
  EXPECT_EQ(classes.size(), 96);
}

TEST(ImageSamplesTest, AMicrobatchHoldsAllViewsOfItsSamples) {
  const auto source = Open(Options(4));
  const auto plain = Open(Options());
  std::set<std::string> images;
  for (int64_t step = 0; step < plain->steps_per_epoch(); ++step) {
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      const Microbatch batch = plain->Train(step, slot);
      for (size_t i = 0; i < 8; ++i) images.insert(ImageAt(batch, i));
    }
  }

  std::set<uint64_t> keys;
  int num_known = 0;
  int num_changed = 0;
  for (int64_t step = 0; step < source->steps_per_epoch(); ++step) {
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      const Microbatch batch = source->Train(step, slot);
      ASSERT_EQ(batch.samples.size(), 8);
      for (size_t i = 0; i < 8; ++i) {
        EXPECT_TRUE(keys.insert(batch.samples[i].key).second);
        EXPECT_EQ(batch.samples[i].slot, slot * 8 + static_cast<int64_t>(i));
        EXPECT_EQ(batch.targets[i], batch.targets[i / 4 * 4]);
        // The first view is the image itself; the others mostly are not.
        if (i % 4 == 0) num_known += images.count(ImageAt(batch, i)) > 0;
        num_changed += ImageAt(batch, i) != ImageAt(batch, i / 4 * 4);
      }
    }
  }

  EXPECT_EQ(source->num_train_samples(), 400);
  EXPECT_EQ(keys.size(), 400);
  // An epoch of `plain` leaves 4 of 100 out.
  EXPECT_GE(num_known, 96);
  EXPECT_GT(num_changed, 270);
}

TEST(ImageSamplesTest, AViewIsTheSameAtEachVisit) {
  const auto source = Open(Options(4));
  std::map<uint64_t, std::string> seen;
  const int64_t rounds = source->steps_per_epoch();
  for (int64_t step = 0; step < 3 * rounds; ++step) {
    const Microbatch batch = source->Train(step, 1);
    for (size_t i = 0; i < 8; ++i) {
      const auto known =
          seen.emplace(batch.samples[i].key, ImageAt(batch, i)).first;
      EXPECT_EQ(known->second, ImageAt(batch, i));
    }
  }

  EXPECT_EQ(seen.size(), 200);
}

TEST(ImageSamplesTest, UnboundedViewsDifferFromVisitToVisit) {
  BatchSourceOptions options = Options();
  options.images->views.is_unbounded = true;
  const auto source = Open(options);
  std::set<uint64_t> keys;
  size_t num_visits = 0;
  for (int64_t step = 0; step < 4 * source->steps_per_epoch(); ++step) {
    const Microbatch batch = source->Train(step, 0);
    for (const BoundarySample& sample : batch.samples) {
      keys.insert(sample.key);
      ++num_visits;
    }
  }

  EXPECT_EQ(keys.size(), num_visits);
}

TEST(ImageSamplesTest, SizesAreThoseOfTheMicrobatchAndOfThePositionAlone) {
  BatchSourceOptions options = Options();
  options.images->sizes = {{28, 0.5}, {20, 0.3}, {14, 0.2}};
  const auto source = Open(options);
  const auto again = Open(options);
  std::map<size_t, int> counts;
  for (int64_t step = 0; step < 500; ++step) {
    for (int64_t slot = 0; slot < kSlots; ++slot) {
      const Microbatch batch = source->Train(step, slot);
      ASSERT_EQ(batch.samples.size(), 8);
      ++counts[batch.tokens.size() / 8];
      if (step % 50 == 0) {
        EXPECT_EQ(again->Train(step, slot).tokens, batch.tokens);
      }
    }
  }

  // n = 1,000: 8 deviations are 127, 116 and 102 (below 1e-14).
  ASSERT_EQ(counts.size(), 3);
  EXPECT_NEAR(counts[28 * 28], 500, 127);
  EXPECT_NEAR(counts[20 * 20], 300, 116);
  EXPECT_NEAR(counts[14 * 14], 200, 102);
}

TEST(ImageSamplesTest, ValidationIsTheShareOfTheTestSetAsItIs) {
  BatchSourceOptions options = Options();
  options.images->sizes = {{14, 1}};
  const auto source = Open(options);

  ASSERT_EQ(source->num_validation_microbatches(), 2);
  const Microbatch first = source->Validation(0);
  const Microbatch second = source->Validation(1);
  EXPECT_EQ(first.samples.size(), 8);
  EXPECT_EQ(second.samples.size(), 2);
  EXPECT_EQ(first.tokens.size(), 8 * kImagePixels);
  EXPECT_EQ(second.targets, (std::vector<uint8_t>{8, 9}));
}

TEST(ImageSamplesTest, TooFewImagesAndOddMicrobatchesSaySo) {
  BatchSourceOptions few = Options();
  few.images->max_train = 15;
  BatchSourceOptions odd = Options(3);

  const auto too_few = BatchSource::Create(few);
  const auto too_odd = BatchSource::Create(odd);

  EXPECT_THAT(std::string(too_few.status().message()),
              HasSubstr("has 15 training samples, but one step takes 16"));
  EXPECT_THAT(std::string(too_odd.status().message()),
              HasSubstr("a multiple of data.views (3), got 8"));
}

}  // namespace
}  // namespace deltapipe
