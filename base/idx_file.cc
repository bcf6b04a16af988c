#include "base/idx_file.h"

#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/image_model.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace deltapipe {
namespace {

constexpr uint8_t kUnsignedByte = 0x08;
constexpr int64_t kMaxItemBytes = int64_t{1} << 20;
constexpr int64_t kMaxItems = 100 * 1000 * 1000;
constexpr size_t kPiece = size_t{1} << 20;

absl::Status Damaged(const std::string& name, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("cannot read images from ", name, ": ", what));
}

absl::StatusOr<std::vector<int64_t>> ReadHeader(const ByteSource& source,
                                                const std::string& name,
                                                int num_extents) {
  std::vector<uint8_t> header(4 + 4 * static_cast<size_t>(num_extents));
  DP_ASSIGN_OR_RETURN(const size_t got, source(absl::MakeSpan(header)));
  const std::array<uint8_t, 4> magic = {0, 0, kUnsignedByte,
                                        static_cast<uint8_t>(num_extents)};
  if (got >= 4 && !std::equal(magic.begin(), magic.end(), header.begin())) {
    return Damaged(
        name,
        absl::StrFormat("expected the magic number 0000%02x%02x of bytes in %d "
                        "extents, got %02x%02x%02x%02x",
                        kUnsignedByte, num_extents, num_extents, header[0],
                        header[1], header[2], header[3]));
  }
  if (got < header.size()) {
    return Damaged(name, absl::StrCat("expected a header of ", header.size(),
                                      " bytes, got ", got, " bytes"));
  }
  std::vector<int64_t> extents;
  for (size_t i = 4; i < header.size(); i += 4) {
    extents.push_back(int64_t{header[i]} << 24 | header[i + 1] << 16 |
                      header[i + 2] << 8 | header[i + 3]);
  }
  return extents;
}

absl::Status CheckExtents(const IdxFile& file, const std::string& name) {
  bool is_in_range = file.num_items() <= kMaxItems;
  int64_t bytes = 1;
  for (size_t i = 1; i < file.extents.size(); ++i) {
    const int64_t extent = file.extents[i];
    is_in_range = is_in_range && extent > 0 && extent <= kMaxItemBytes / bytes;
    if (!is_in_range) break;
    bytes *= extent;
  }
  if (is_in_range) return absl::OkStatus();
  return Damaged(
      name,
      absl::StrCat("expected at most ", FormatCount(kMaxItems),
                   " items of 1 to ", FormatCount(kMaxItemBytes),
                   " bytes, got extents ", absl::StrJoin(file.extents, " x ")));
}

}  // namespace

int64_t IdxFile::item_bytes() const {
  int64_t bytes = 1;
  for (size_t i = 1; i < extents.size(); ++i) bytes *= extents[i];
  return bytes;
}

absl::StatusOr<IdxFile> ReadIdx(const ByteSource& source,
                                const std::string& name, int num_extents,
                                int64_t max_items) {
  IdxFile file;
  DP_ASSIGN_OR_RETURN(file.extents, ReadHeader(source, name, num_extents));
  DP_RETURN_IF_ERROR(CheckExtents(file, name));
  const int64_t num_read = std::min(max_items, file.num_items());
  const auto wanted = static_cast<size_t>(num_read * file.item_bytes());
  while (file.values.size() < wanted) {
    const size_t before = file.values.size();
    const size_t piece = std::min(kPiece, wanted - before);
    file.values.resize(before + piece);
    DP_ASSIGN_OR_RETURN(const size_t got,
                        source(absl::MakeSpan(&file.values[before], piece)));
    if (got == piece) continue;
    return Damaged(
        name,
        absl::StrCat("truncated: its header promises ",
                     FormatCount(file.num_items()), " items of ",
                     file.item_bytes(), " bytes, but there are bytes for ",
                     FormatCount(static_cast<int64_t>(before + got) /
                                 file.item_bytes())));
  }
  if (num_read < file.num_items() || max_items == 0) return file;
  uint8_t more = 0;
  DP_ASSIGN_OR_RETURN(const size_t got, source(absl::MakeSpan(&more, 1)));
  if (got == 0) return file;
  return Damaged(name, absl::StrCat("there are more bytes than for the ",
                                    FormatCount(file.num_items()),
                                    " items that its header promises"));
}

absl::StatusOr<IdxFile> ReadIdxFile(const std::string& path, int num_extents,
                                    int64_t max_items) {
  // zlib reads what is not compressed as it is.
  errno = 0;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"),
                                                  &gzclose_r);
  if (file == nullptr) {
    return FileError("open", path, errno != 0 ? errno : ENOMEM);
  }
  return ReadIdx(
      [&](absl::Span<uint8_t> bytes) -> absl::StatusOr<size_t> {
        const int got = gzread(file.get(), bytes.data(),
                               static_cast<unsigned>(bytes.size()));
        int error = Z_OK;
        const char* const text = gzerror(file.get(), &error);
        if (error == Z_ERRNO) return FileError("read", path, errno);
        const bool is_short = got < static_cast<int>(bytes.size());
        if (is_short && error != Z_OK) {
          return Damaged(path, absl::StrCat("its gzip data is damaged: ",
                                            text == nullptr ? "" : text));
        }
        return static_cast<size_t>(got);
      },
      path, num_extents, max_items);
}

absl::StatusOr<std::string> FindIdxFile(const std::string& folder,
                                        const std::string& name) {
  for (const char* const ending : {"", ".gz"}) {
    const std::string path = absl::StrCat(folder, "/", name, ending);
    struct stat facts;
    if (stat(path.c_str(), &facts) == 0) return path;
  }
  return absl::NotFoundError(
      absl::StrCat("'", folder, "' holds no ", name, " and no ", name, ".gz"));
}

absl::StatusOr<ImageSet> ReadImageSet(const std::string& folder, bool is_test,
                                      int64_t max_images) {
  const std::string prefix = is_test ? "t10k" : "train";
  DP_ASSIGN_OR_RETURN(const std::string images_path,
                      FindIdxFile(folder, prefix + "-images-idx3-ubyte"));
  DP_ASSIGN_OR_RETURN(const std::string labels_path,
                      FindIdxFile(folder, prefix + "-labels-idx1-ubyte"));
  DP_ASSIGN_OR_RETURN(IdxFile images, ReadIdxFile(images_path, 3, max_images));
  DP_ASSIGN_OR_RETURN(IdxFile labels, ReadIdxFile(labels_path, 1, max_images));
  if (images.extents[1] != kImageSize || images.extents[2] != kImageSize) {
    return Damaged(images_path,
                   absl::StrCat("expected images of ", kImageSize, " x ",
                                kImageSize, " pixels, got ", images.extents[1],
                                " x ", images.extents[2]));
  }
  if (images.num_items() != labels.num_items()) {
    return Damaged(images_path, absl::StrCat(FormatCount(images.num_items()),
                                             " images, but ",
                                             FormatCount(labels.num_items()),
                                             " labels in ", labels_path));
  }
  for (size_t i = 0; i < labels.values.size(); ++i) {
    if (labels.values[i] < kNumImageClasses) continue;
    return Damaged(
        labels_path,
        absl::StrCat("expected labels below ", kNumImageClasses, ", got ",
                     static_cast<int>(labels.values[i]), " of image ", i));
  }
  ImageSet set;
  set.num_images = images.num_items();
  set.pixels = std::move(images.values);
  set.classes = std::move(labels.values);
  return set;
}

}  // namespace deltapipe
