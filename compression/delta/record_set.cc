#include "compression/delta/record_set.h"

#include <memory>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {

RecordSet TakeRecords(const StateStore& store) {
  const StateStore::Usage usage = store.usage();
  RecordSet set;
  set.last_version = usage.last_version;
  set.records.reserve(static_cast<size_t>(usage.num_records));
  store.ForEach([&](uint64_t key, const RecordPtr& record) {
    set.records.emplace_back(key, record);
    return true;
  });
  return set;
}

absl::Status PutRecords(const RecordSet& set, int64_t record_bytes,
                        uint32_t step, StateStore* store) {
  if (store->usage().num_records != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot load a saved state into one of ", store->usage().num_records,
        " records: expected an empty one"));
  }
  absl::flat_hash_set<uint64_t> keys;
  for (const auto& [key, record] : set.records) {
    if (record->values.size() != record_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "bad saved state: sample ", key, " has a record of ",
          record->values.size(), " bytes, expected ", record_bytes));
    }
    if (!keys.insert(key).second || record->version == 0 ||
        record->version > set.last_version) {
      return absl::InvalidArgumentError(absl::StrCat(
          "bad saved state: sample ", key, " of version ", record->version,
          " occurs twice or is newer than the last one, ", set.last_version));
    }
  }
  std::vector<std::pair<uint64_t, RecordPtr>> adopted;
  adopted.reserve(set.records.size());
  for (const auto& [key, record] : set.records) {
    DP_ASSIGN_OR_RETURN(RecordPtr own, store->Adopt(record));
    adopted.emplace_back(key, std::move(own));
  }
  if (set.last_version != 0) {
    // The record of the last version may have been evicted; versions go on
    // after it nevertheless.
    auto last = std::make_shared<Record>();
    last->version = set.last_version;
    store->Stage(step, 0, std::move(last));
    store->Stage(step, 0, nullptr);
  }
  for (auto& [key, record] : adopted) {
    store->Stage(step, key, std::move(record));
  }
  store->CommitStep(step);
  return absl::OkStatus();
}

}  // namespace deltapipe
