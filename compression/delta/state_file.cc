#include "compression/delta/state_file.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/little_endian.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr char kMagic[] = "DPSTATE1";
constexpr int64_t kHeaderBytes = 32;
constexpr int64_t kRecordHeaderBytes = 16;
constexpr int64_t kChecksumBytes = 8;

absl::Status Damaged(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("bad saved state: ", why));
}

}  // namespace

absl::Status ExportState(const StateStore& store, const ByteSink& sink) {
  const StateStore::Usage usage = store.usage();
  ChecksumStream checksum;
  const auto write = [&](absl::Span<const uint8_t> bytes) {
    checksum.Update(bytes);
    return sink(bytes);
  };
  uint8_t header[kHeaderBytes];
  std::memcpy(header, kMagic, 8);
  uint8_t* at = header + 8;
  // All records of a store have one size.
  at = StoreLittleEndian(
      static_cast<uint64_t>(usage.bytes /
                            std::max<int64_t>(1, usage.num_records)),
      at);
  at = StoreLittleEndian(static_cast<uint64_t>(usage.num_records), at);
  at = StoreLittleEndian(usage.last_version, at);
  StoreLittleEndian(uint32_t{0}, at);
  DP_RETURN_IF_ERROR(write(header));
  absl::Status status;
  store.ForEach([&](uint64_t key, const RecordPtr& record) {
    uint8_t record_header[kRecordHeaderBytes];
    uint8_t* next = StoreLittleEndian(key, record_header);
    next = StoreLittleEndian(record->version, next);
    StoreLittleEndian(uint32_t{0}, next);
    status = write(record_header);
    if (status.ok()) status = write(record->values.span());
    return status.ok();
  });
  DP_RETURN_IF_ERROR(status);
  uint8_t digest[kChecksumBytes];
  StoreLittleEndian(checksum.Digest(), digest);
  return sink(digest);
}

absl::Status ImportState(absl::Span<const uint8_t> bytes, int64_t record_bytes,
                         uint32_t step, StateStore* store) {
  if (store->usage().num_records != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot load a saved state into one of ", store->usage().num_records,
        " records: expected an empty one"));
  }
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (size < kHeaderBytes + kChecksumBytes ||
      std::memcmp(bytes.data(), kMagic, 8) != 0) {
    return Damaged(absl::StrCat("its ", size, " bytes do not begin with ",
                                kMagic, " and a header"));
  }
  const auto content = bytes.first(static_cast<size_t>(size - kChecksumBytes));
  if (Checksum(content) != LoadLittleEndian<uint64_t>(content.end())) {
    return Damaged("its checksum does not match");
  }
  const uint64_t stated_bytes = LoadLittleEndian<uint64_t>(bytes.data() + 8);
  const uint64_t num_records = LoadLittleEndian<uint64_t>(bytes.data() + 16);
  const uint32_t last_version = LoadLittleEndian<uint32_t>(bytes.data() + 24);
  if (num_records > 0 && stated_bytes != static_cast<uint64_t>(record_bytes)) {
    return Damaged(absl::StrCat("records of ", stated_bytes,
                                " bytes, expected ", record_bytes));
  }
  const int64_t stride = kRecordHeaderBytes + record_bytes;
  const int64_t room = size - kHeaderBytes - kChecksumBytes;
  if (num_records > static_cast<uint64_t>(room / stride) ||
      static_cast<int64_t>(num_records) * stride != room) {
    return Damaged(absl::StrCat(num_records, " records of ", record_bytes,
                                " bytes in ", room));
  }
  std::vector<std::pair<uint64_t, RecordPtr>> records;
  absl::flat_hash_set<uint64_t> keys;
  records.reserve(static_cast<size_t>(num_records));
  for (int64_t begin = kHeaderBytes; begin < kHeaderBytes + room;
       begin += stride) {
    const uint8_t* at = bytes.data() + begin;
    const uint64_t key = LoadLittleEndian<uint64_t>(at);
    auto record = std::make_shared<Record>();
    record->version = LoadLittleEndian<uint32_t>(at + 8);
    if (!keys.insert(key).second || record->version == 0 ||
        record->version > last_version) {
      return Damaged(absl::StrCat("sample ", key, " of version ",
                                  record->version,
                                  " occurs twice or is too recent"));
    }
    record->values = Buffer::CopyOf(
        bytes.subspan(static_cast<size_t>(begin + kRecordHeaderBytes),
                      static_cast<size_t>(record_bytes)));
    records.emplace_back(key, std::move(record));
  }
  if (last_version != 0) {
    // The record of the last version may have been evicted; versions go on
    // after it nevertheless.
    auto last = std::make_shared<Record>();
    last->version = last_version;
    store->Stage(step, 0, std::move(last));
    store->Stage(step, 0, nullptr);
  }
  for (auto& [key, record] : records) {
    store->Stage(step, key, std::move(record));
  }
  store->CommitStep(step);
  return absl::OkStatus();
}

}  // namespace deltapipe
