// Small sets of images for tests, in the files that base/idx_file.h reads.
#ifndef DELTAPIPE_WORKER_DATA_TESTING_IMAGES_H_
#define DELTAPIPE_WORKER_DATA_TESTING_IMAGES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/image_model.h"
#include "base/philox.h"
#include "gtest/gtest.h"

namespace deltapipe {

/// Writes one set: image i is of class i % 10, an upright bar and a lying bar,
/// both somewhere between the first and the last quarter, of a thickness and
/// brightness that tell its class, in noise; a function of (seed, i).
inline void WriteImageSet(const std::string& folder, const std::string& prefix,
                          int64_t count, uint32_t seed) {
  const auto big_endian = [](int64_t value) {
    std::string text;
    for (int shift = 24; shift >= 0; shift -= 8) {
      text.push_back(static_cast<char>(value >> shift));
    }
    return text;
  };
  std::string images = big_endian(0x803) + big_endian(count) +
                       big_endian(kImageSize) + big_endian(kImageSize);
  std::string labels = big_endian(0x801) + big_endian(count);
  for (int64_t i = 0; i < count; ++i) {
    const auto label = static_cast<int64_t>(i % kNumImageClasses);
    const auto draw = [&](uint32_t what) {
      return Philox4x32({static_cast<uint32_t>(i), what, 0, 0}, {seed, 1});
    };
    const PhiloxBlock place = draw(0);
    const int64_t across = 7 + place[0] % 14;
    const int64_t along = 7 + place[1] % 14;
    for (int64_t p = 0; p < kImagePixels; ++p) {
      const int64_t x = p % kImageSize;
      const int64_t y = p / kImageSize;
      const bool is_upright = x >= across && x < across + 1 + label % 5;
      const bool is_lying = y >= along && y < along + 1 + label / 5 * 3;
      const uint32_t noise = draw(1 + static_cast<uint32_t>(p))[0] % 60;
      images.push_back(static_cast<char>(noise + (is_upright ? 110 : 0) +
                                         (is_lying ? 80 : 0)));
    }
    labels.push_back(static_cast<char>(label));
  }
  EXPECT_TRUE(
      WriteFileAtomically(
          absl::StrCat(folder, "/", prefix, "-images-idx3-ubyte"), images)
          .ok());
  EXPECT_TRUE(
      WriteFileAtomically(
          absl::StrCat(folder, "/", prefix, "-labels-idx1-ubyte"), labels)
          .ok());
}

/// A folder of both sets.
inline std::string WriteImages(const std::string& name, int64_t num_train,
                               int64_t num_test) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "/", name);
  EXPECT_TRUE(MakeDirectories(folder).ok());
  WriteImageSet(folder, "train", num_train, 1);
  WriteImageSet(folder, "t10k", num_test, 2);
  return folder;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_DATA_TESTING_IMAGES_H_
