// Reads files of the MNIST family ("idx"): big-endian magic, extents, bytes.
//
//   0x00 0x00 0x08 D | D extents of 4 bytes each | the bytes, last extent fast
//
// Called by workers, which train on them, and by the coordinator, which looks
// at their extents when a job is submitted; thread-safe, blocking. Nothing is
// allocated for what a header promises before it has been read. Files may be
// plain or compressed with gzip.
//
//   DP_ASSIGN_OR_RETURN(const IdxFile images,
//                       ReadIdxFile(path, /*num_extents=*/3, 1000));
//
// Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
#ifndef DELTAPIPE_BASE_IDX_FILE_H_
#define DELTAPIPE_BASE_IDX_FILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace deltapipe {

struct IdxFile {
  std::vector<int64_t> extents;  // as the header has them
  /// Of the first items, `max_items` at most.
  std::vector<uint8_t> values;

  int64_t num_items() const { return extents[0]; }
  /// Bytes of one item.
  int64_t item_bytes() const;
};

/// Fills the span from the front and returns how many bytes there were: fewer
/// than asked for at the end.
using ByteSource =
    std::function<absl::StatusOr<size_t>(absl::Span<uint8_t> bytes)>;

/// INVALID_ARGUMENT, naming `name`, for another magic or number of extents, an
/// extent or item out of range (an item has 1 to 2^20 bytes, a file at most
/// 10^8 items), fewer bytes than promised, or more where all were read.
absl::StatusOr<IdxFile> ReadIdx(const ByteSource& source,
                                const std::string& name, int num_extents,
                                int64_t max_items);

/// The same of a file. Errors of FileError, and INVALID_ARGUMENT for damaged
/// gzip data.
absl::StatusOr<IdxFile> ReadIdxFile(const std::string& path, int num_extents,
                                    int64_t max_items);

/// The path of `name` or `name`.gz in `folder`, the first that is there;
/// NOT_FOUND names both.
absl::StatusOr<std::string> FindIdxFile(const std::string& folder,
                                        const std::string& name);

/// One of the two sets of images in a folder: the first `max_images` of them.
struct ImageSet {
  int64_t num_images = 0;        // that the files have
  std::vector<uint8_t> pixels;   // of kImagePixels each
  std::vector<uint8_t> classes;  // below kNumImageClasses
};

/// Reads {train,t10k}-{images-idx3,labels-idx1}-ubyte of `folder`. With
/// max_images 0 only headers are read. INVALID_ARGUMENT also for images of
/// another size than kImageSize, other numbers of images and of labels, or a
/// label that is no class.
absl::StatusOr<ImageSet> ReadImageSet(const std::string& folder, bool is_test,
                                      int64_t max_images);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_IDX_FILE_H_
