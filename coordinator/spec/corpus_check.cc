#include "coordinator/spec/corpus_check.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/idx_file.h"
#include "base/image_options.h"
#include "base/units.h"

namespace deltapipe {
namespace {

constexpr int64_t kSampledBytes = int64_t{4} << 20;

/// The length of the valid UTF-8 sequence at the start of `bytes`, 0 if none.
size_t Utf8Length(absl::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = byte(0);
  size_t length = 0;
  uint32_t code = 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead < 0xE0) {
    length = 2;
    code = lead & 0x1F;
  } else if (lead >= 0xE0 && lead < 0xF0) {
    length = 3;
    code = lead & 0x0F;
  } else if (lead >= 0xF0 && lead < 0xF5) {
    length = 4;
    code = lead & 0x07;
  } else {
    return 0;
  }
  if (bytes.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool is_overlong =
      (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool is_surrogate = code >= 0xD800 && code < 0xE000;
  return is_overlong || is_surrogate || code > 0x10FFFF ? 0 : length;
}

bool IsControl(uint8_t byte) {
  return (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r' &&
          byte != '\f' && byte != 0x1B) ||
         byte == 0x7F;
}

/// What is wrong with the path itself, or ""; `size` is the file's.
std::string PathProblem(const std::string& path, int64_t* size) {
  struct stat facts;
  if (stat(path.c_str(), &facts) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) {
      return std::string(FileError("read", path, errno).message());
    }
    char folder[PATH_MAX];
    const bool is_relative = path[0] != '/';
    const bool has_folder =
        is_relative && getcwd(folder, sizeof(folder)) != nullptr;
    return absl::StrCat(
        "expected a file to train on, got '", path, "', which does not exist",
        has_folder ? absl::StrCat(" (looked in ", folder, ")") : std::string());
  }
  if (S_ISDIR(facts.st_mode)) {
    return absl::StrCat("expected a file to train on, got the folder '", path,
                        "'");
  }
  if (!S_ISREG(facts.st_mode)) {
    return absl::StrCat("expected a regular file to train on, got '", path,
                        "', which is a device, pipe or socket");
  }
  if (facts.st_size == 0) {
    return absl::StrCat("expected a text to train on, got '", path,
                        "', which is empty");
  }
  *size = facts.st_size;
  return "";
}

std::string SizeProblem(const v1::JobSpec& spec, int64_t used_bytes) {
  const int64_t context = spec.model().context();
  const int64_t batch = spec.train().batch();
  const double held_out = spec.data().validation();
  const int64_t train_bytes =
      static_cast<int64_t>(static_cast<double>(used_bytes) * (1 - held_out));
  const bool is_enough =
      train_bytes >= batch * context + 1 &&
      (held_out == 0 || used_bytes - train_bytes >= context + 1);
  if (is_enough) return "";
  double needed =
      std::ceil(static_cast<double>(batch * context + 1) / (1 - held_out));
  if (held_out > 0) {
    needed = std::max(needed,
                      std::ceil(static_cast<double>(context + 1) / held_out));
  }
  return absl::StrCat(
      "expected at least ", FormatCount(static_cast<int64_t>(needed)),
      " bytes, for one batch of ", batch, " samples of ", context,
      " bytes and the validation share, got ", FormatCount(used_bytes));
}

std::string ImageCountProblem(const v1::JobSpec& spec, int64_t used,
                              int64_t num_test) {
  const auto views = ParseViewChoice(spec.data().views());
  const int64_t needed = spec.train().batch() / (views.ok() ? views->count : 1);
  if (used < needed) {
    return absl::StrCat("expected at least ", FormatCount(needed),
                        " images, for one batch of ", spec.train().batch(),
                        " views, got ", FormatCount(used));
  }
  const double share = spec.data().validation();
  if (share == 0 || share * static_cast<double>(num_test) >= 1) return "";
  return absl::StrCat("expected a test set of which the share ", share,
                      " for validation is an image, got one of ",
                      FormatCount(num_test));
}

/// Looks at the headers of the images and labels in the folder.
std::vector<SpecViolation> CheckImages(const v1::JobSpec& spec) {
  const std::string& path = spec.data().path();
  const auto train = ReadImageSet(path, /*is_test=*/false, 0);
  const auto test = ReadImageSet(path, /*is_test=*/true, 0);
  for (const absl::Status& status : {train.status(), test.status()}) {
    if (!status.ok()) {
      return {
          {"", "data.path",
           absl::StrCat("expected a folder of images: ", status.message())}};
    }
  }
  const int64_t limit = spec.data().samples();
  const int64_t used =
      limit > 0 ? std::min(limit, train->num_images) : train->num_images;
  const std::string problem = ImageCountProblem(spec, used, test->num_images);
  if (problem.empty()) return {};
  return {
      {"", used < train->num_images ? "data.samples" : "data.path", problem}};
}

}  // namespace

std::string TextProblem(absl::string_view bytes) {
  const size_t nul = bytes.find('\0');
  if (nul != absl::string_view::npos) {
    return absl::StrCat("expected text, got binary data (a NUL byte at ",
                        FormatCount(static_cast<int64_t>(nul)), ")");
  }
  int64_t strange = 0;
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = Utf8Length(bytes.substr(i, 4));
    if (length == 0 || (length == 1 && IsControl(bytes[i]))) ++strange;
    i += std::max<size_t>(length, 1);
  }
  if (2 * strange <= static_cast<int64_t>(bytes.size())) return "";
  return absl::StrCat("expected text, got binary data (",
                      100 * strange / static_cast<int64_t>(bytes.size()),
                      " % of its bytes are no UTF-8)");
}

std::vector<SpecViolation> CheckCorpus(const v1::JobSpec& spec) {
  const std::string& path = spec.data().path();
  if (spec.model().kind() == "synthetic" || path.empty()) return {};
  if (spec.data().kind() == "fashion_mnist") return CheckImages(spec);
  int64_t size = 0;
  std::string problem = PathProblem(path, &size);
  if (!problem.empty()) return {{"", "data.path", problem}};

  const auto limit = ParseBytes(spec.data().limit());
  const int64_t used = limit.ok() ? std::min(size, *limit) : size;
  std::ifstream file(path, std::ios::binary);
  std::string head(static_cast<size_t>(std::min(used, kSampledBytes)), '\0');
  if (!file.is_open() ||
      !file.read(&head[0], static_cast<std::streamsize>(head.size()))) {
    const int cause = errno != 0 ? errno : EIO;
    return {{"", "data.path",
             std::string(FileError("read", path, cause).message())}};
  }
  problem = TextProblem(head);
  if (!problem.empty()) {
    return {{"", "data.path", absl::StrCat(problem, ": '", path, "'")}};
  }
  problem = SizeProblem(spec, used);
  if (problem.empty()) return {};
  return {{"", used < size ? "data.limit" : "data.path", problem}};
}

}  // namespace deltapipe
