#include "coordinator/spec/corpus_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/file.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CorpusCheckTest : public ::testing::Test {
 protected:
  CorpusCheckTest() {
    const char* folder = std::getenv("TEST_TMPDIR");
    folder_ = folder != nullptr ? folder : "/tmp";
    spec_.set_name("t");
    FillDefaults(&spec_);
  }

  void UseFile(const std::string& name, const std::string& content) {
    const std::string path = folder_ + "/" + name;
    ASSERT_TRUE(WriteFileAtomically(path, content).ok());
    spec_.mutable_data()->set_path(path);
  }

  /// The one violation's field and message, or "".
  std::string Problem() const {
    const std::vector<SpecViolation> violations = CheckCorpus(spec_);
    if (violations.empty()) return "";
    return violations[0].field + ": " + violations[0].message;
  }

  std::string folder_;
  v1::JobSpec spec_;
};

TEST_F(CorpusCheckTest, AcceptsText) {
  UseFile("text", std::string(100000, 'a'));

  EXPECT_EQ(Problem(), "");
}

TEST_F(CorpusCheckTest, RefusesMissingFileFolderAndEmptyFile) {
  spec_.mutable_data()->set_path("no/such.txt");
  EXPECT_THAT(Problem(), HasSubstr("'no/such.txt', which does not exist"));

  spec_.mutable_data()->set_path(folder_);
  EXPECT_THAT(Problem(), HasSubstr("got the folder '"));

  spec_.mutable_data()->set_path("/dev/zero");
  EXPECT_THAT(Problem(), HasSubstr("expected a regular file"));

  UseFile("empty", "");
  EXPECT_THAT(Problem(), HasSubstr("which is empty"));
}

TEST_F(CorpusCheckTest, NamesHowManyBytesABatchNeeds) {
  UseFile("small", std::string(4000, 'a'));
  EXPECT_EQ(Problem(),
            "data.path: expected at least 4,313 bytes, for one batch of 32 "
            "samples of 128 bytes and the validation share, got 4,000");

  UseFile("enough", std::string(4313, 'a'));
  EXPECT_EQ(Problem(), "");

  UseFile("limited", std::string(100000, 'a'));
  spec_.mutable_data()->set_limit("4kB");
  EXPECT_THAT(Problem(), HasSubstr("data.limit: expected at least 4,313"));
}

/// A header of images or labels, and nothing after it.
std::string IdxHeader(const std::vector<uint32_t>& numbers) {
  std::string header;
  for (const uint32_t number : numbers) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      header.push_back(static_cast<char>(number >> shift));
    }
  }
  return header;
}

TEST_F(CorpusCheckTest, LooksAtTheHeadersOfImages) {
  spec_.mutable_model()->set_kind("resnet");
  spec_.mutable_data()->set_kind("fashion_mnist");
  spec_.mutable_data()->set_validation(0.5);
  UseFile("train-images-idx3-ubyte", IdxHeader({0x803, 40, 28, 28}));
  UseFile("train-labels-idx1-ubyte", IdxHeader({0x801, 40}));
  spec_.mutable_data()->set_path(folder_);
  EXPECT_THAT(Problem(), HasSubstr("data.path: expected a folder of images: '" +
                                   folder_ + "' holds no t10k-images"));

  UseFile("t10k-images-idx3-ubyte", IdxHeader({0x803, 2, 28, 28}));
  UseFile("t10k-labels-idx1-ubyte", IdxHeader({0x801, 2}));
  spec_.mutable_data()->set_path(folder_);
  EXPECT_EQ(Problem(), "");

  spec_.mutable_data()->set_samples(31);
  EXPECT_EQ(Problem(),
            "data.samples: expected at least 32 images, for one batch of 32 "
            "views, got 31");
  spec_.mutable_data()->set_views("2");
  EXPECT_EQ(Problem(), "");
  spec_.mutable_data()->set_validation(0.4);
  EXPECT_THAT(Problem(), HasSubstr("the share 0.4 for validation"));
}

TEST_F(CorpusCheckTest, RefusesBinaryData) {
  std::string garbage(100000, '\0');
  uint32_t state = 17;
  for (char& byte : garbage) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  UseFile("garbage", garbage);

  EXPECT_THAT(Problem(), HasSubstr("expected text, got binary data"));
}

TEST_F(CorpusCheckTest, SyntheticModelsNeedNoFile) {
  spec_.mutable_model()->set_kind("synthetic");
  spec_.mutable_data()->set_path("no/such.txt");

  EXPECT_THAT(CheckCorpus(spec_), IsEmpty());
}

TEST(TextProblemTest, NulByteIsNamedWithItsPlace) {
  EXPECT_EQ(TextProblem(absl::string_view("ab\0c", 4)),
            "expected text, got binary data (a NUL byte at 2)");
}

TEST(TextProblemTest, LatinTextAndUtf8PassMajorityOfInvalidBytesDoesNot) {
  EXPECT_EQ(TextProblem("na\xefve caf\xe9, written in Latin-1"), "");
  EXPECT_EQ(TextProblem("\xd0\x9c\xd0\xb8\xd1\x80 \xf0\x9f\x8c\x8d\n"), "");
  EXPECT_THAT(TextProblem("\xff\xfe\xfd\xfc\xfb te"), HasSubstr("no UTF-8"));
  EXPECT_THAT(TextProblem("\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80"),
              HasSubstr("100 %"));
}

TEST(TextProblemTest, SequenceCutAtTheEndIsNotReadPastIt) {
  EXPECT_EQ(TextProblem("plain \xf0\x9f"), "");
}

}  // namespace
}  // namespace deltapipe
