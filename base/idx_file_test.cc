#include "base/idx_file.h"

#include <sys/stat.h>
#include <zlib.h>

#include <cstdlib>
#include <string>

#include "base/file.h"
#include "base/image_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string BigEndian(uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) {
    text.push_back(static_cast<char>(value >> shift));
  }
  return text;
}

std::string Header(uint32_t magic, const std::vector<uint32_t>& extents) {
  std::string text = BigEndian(magic);
  for (const uint32_t extent : extents) text += BigEndian(extent);
  return text;
}

std::string Images(uint32_t count) {
  return Header(0x803, {count, 28, 28}) +
         std::string(count * static_cast<size_t>(kImagePixels), 'x');
}

std::string Labels(uint32_t count) {
  return Header(0x801, {count}) + std::string(count, '\7');
}

class IdxFileTest : public ::testing::Test {
 protected:
  IdxFileTest()
      : folder_(
            ::testing::TempDir() + "/" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    EXPECT_TRUE(MakeDirectories(folder_).ok());
    Write("train-images-idx3-ubyte", Images(5));
    Write("train-labels-idx1-ubyte", Labels(5));
  }

  void Write(const std::string& name, const std::string& content) {
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/" + name, content).ok());
  }

  std::string Problem(int64_t max_images = INT64_MAX) const {
    const auto set = ReadImageSet(folder_, /*is_test=*/false, max_images);
    EXPECT_EQ(set.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(set.status().message());
  }

  const std::string folder_;
};

TEST_F(IdxFileTest, ReadsTheFirstImagesOfAFolder) {
  const auto set = ReadImageSet(folder_, /*is_test=*/false, 2);

  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->num_images, 5);
  EXPECT_EQ(set->pixels.size(), 2 * 28 * 28);
  EXPECT_THAT(set->classes, ElementsAre(7, 7));
}

TEST_F(IdxFileTest, HeadersAloneTellTheNumberOfImages) {
  Write("train-images-idx3-ubyte", Header(0x803, {5, 28, 28}));
  Write("train-labels-idx1-ubyte", Header(0x801, {5}));

  const auto set = ReadImageSet(folder_, /*is_test=*/false, 0);

  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->num_images, 5);
}

TEST_F(IdxFileTest, ReadsWhatIsCompressed) {
  ASSERT_EQ(std::remove((folder_ + "/train-labels-idx1-ubyte").c_str()), 0);
  const std::string path = folder_ + "/train-labels-idx1-ubyte.gz";
  const std::string labels = Labels(5);
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, labels.data(), static_cast<unsigned>(labels.size())),
            static_cast<int>(labels.size()));
  gzclose(file);

  const auto set = ReadImageSet(folder_, /*is_test=*/false, INT64_MAX);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_THAT(set->classes, ElementsAre(7, 7, 7, 7, 7));

  auto bytes = ReadFile(path);
  ASSERT_TRUE(bytes.ok());
  bytes->resize(bytes->size() - 6);
  Write("train-labels-idx1-ubyte.gz", *bytes);
  EXPECT_THAT(Problem(), HasSubstr("its gzip data is damaged"));
}

TEST_F(IdxFileTest, MissingFilesAreNamed) {
  const auto set = ReadImageSet(folder_, /*is_test=*/true, 1);

  EXPECT_EQ(set.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(set.status().message()),
              HasSubstr("holds no t10k-images-idx3-ubyte and no "
                        "t10k-images-idx3-ubyte.gz"));
}

TEST_F(IdxFileTest, WrongMagicIsShown) {
  Write("train-images-idx3-ubyte", Labels(5));
  EXPECT_THAT(Problem(), HasSubstr("magic number 00000803 of bytes in 3 "
                                   "extents, got 00000801"));
}

TEST_F(IdxFileTest, TruncatedAndOverlongFilesAreRefused) {
  Write("train-images-idx3-ubyte", Images(5).substr(0, 16 + 3 * 784 + 1));
  EXPECT_THAT(Problem(), HasSubstr("promises 5 items of 784 bytes, but there "
                                   "are bytes for 3"));
  Write("train-images-idx3-ubyte", Images(5) + "y");
  EXPECT_THAT(Problem(), HasSubstr("more bytes than for the 5 items"));
  Write("train-images-idx3-ubyte", Images(5).substr(0, 9));
  EXPECT_THAT(Problem(), HasSubstr("a header of 16 bytes, got 9 bytes"));
}

TEST_F(IdxFileTest, ExtentsAreBoundedBeforeAnythingIsAllocated) {
  Write("train-images-idx3-ubyte",
        Header(0x803, {5, 0xFFFFFFFF, 0xFFFFFFFF}) + "abc");
  EXPECT_THAT(Problem(), HasSubstr("got extents 5 x 4294967295 x 4294967295"));
  Write("train-images-idx3-ubyte", Header(0x803, {0xFFFFFFFF, 28, 28}));
  EXPECT_THAT(Problem(), HasSubstr("at most 100,000,000 items"));
}

TEST_F(IdxFileTest, CountsSizesAndLabelsMustFit) {
  Write("train-labels-idx1-ubyte", Labels(4));
  EXPECT_THAT(Problem(), HasSubstr("5 images, but 4 labels in"));
  Write("train-images-idx3-ubyte",
        Header(0x803, {4, 14, 14}) + std::string(4 * 14 * 14, 'x'));
  EXPECT_THAT(Problem(), HasSubstr("images of 28 x 28 pixels, got 14 x 14"));
  Write("train-images-idx3-ubyte", Images(4));
  Write("train-labels-idx1-ubyte",
        Header(0x801, {4}) + std::string("\1\2\12\3", 4));
  EXPECT_THAT(Problem(), HasSubstr("labels below 10, got 10 of image 2"));
}

TEST(FashionMnistTest, TheRealSetIsWhole) {
  const char* const told = std::getenv("DELTAPIPE_FASHION_MNIST");
  const std::string folder =
      told != nullptr ? told : "/usr/share/datasets/fashion-mnist";
  struct stat facts;
  if (stat(folder.c_str(), &facts) != 0) {
    GTEST_SKIP() << "not run: " << folder
                 << " is not there (Debian's package dataset-fashion-mnist)";
  }

  const auto train = ReadImageSet(folder, /*is_test=*/false, INT64_MAX);
  const auto test = ReadImageSet(folder, /*is_test=*/true, INT64_MAX);

  ASSERT_TRUE(train.ok()) << train.status();
  ASSERT_TRUE(test.ok()) << test.status();
  EXPECT_EQ(train->num_images, 60000);
  EXPECT_EQ(test->num_images, 10000);
  double sum = 0;
  double squares = 0;
  for (const uint8_t pixel : train->pixels) {
    sum += pixel / 255.0;
    squares += pixel / 255.0 * (pixel / 255.0);
  }
  const double mean = sum / static_cast<double>(train->pixels.size());
  const double variance =
      squares / static_cast<double>(train->pixels.size()) - mean * mean;
  // What models/pixels.h normalises by.
  EXPECT_NEAR(mean, 0.2860, 1e-4);
  EXPECT_NEAR(variance, 0.3530 * 0.3530, 1e-4);
}

}  // namespace
}  // namespace deltapipe
