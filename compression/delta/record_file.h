// RecordFile: records of one channel in a file that is mapped into memory, so
// that the system moves them between memory and disk as they are used.
//
// The file has no name and is gone with the last record and this object. It
// grows by whole chunks, whose disk space is taken before they are mapped: a
// full disk is an error of New, not a signal later. A record's place is used
// again once nobody holds the record. Thread-safe.
#ifndef DELTAPIPE_COMPRESSION_DELTA_RECORD_FILE_H_
#define DELTAPIPE_COMPRESSION_DELTA_RECORD_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "compression/delta/record.h"

namespace deltapipe {

class RecordFile : public std::enable_shared_from_this<RecordFile> {
 public:
  /// Makes `folder` where it is missing. Errors name it: PERMISSION_DENIED,
  /// RESOURCE_EXHAUSTED, UNAVAILABLE.
  static absl::StatusOr<std::shared_ptr<RecordFile>> Create(
      const std::string& folder, int64_t record_bytes);
  ~RecordFile();

  /// With content that is not initialised. RESOURCE_EXHAUSTED, with the remedy,
  /// on a full disk.
  absl::StatusOr<std::shared_ptr<Record>> New(uint32_t version);

  /// Has the system read a record of this file from the disk, in the
  /// background, if it is not in memory.
  void Prefetch(const Record& record) const;

  /// Of the file.
  int64_t bytes() const;

 private:
  struct Place;

  RecordFile(int fd, std::string folder, int64_t record_bytes);
  absl::Status Grow() DP_REQUIRES(mutex_);
  void GiveBack(uint8_t* place);

  const int fd_;
  const std::string folder_;
  const int64_t record_bytes_;
  const int64_t stride_;       // from one record to the next
  const int64_t chunk_bytes_;  // a multiple of both stride_ and pages
  mutable Mutex mutex_;
  std::vector<uint8_t*> chunks_ DP_GUARDED_BY(mutex_);
  std::vector<uint8_t*> free_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_RECORD_FILE_H_
