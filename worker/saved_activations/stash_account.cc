// What entries take: the accounts of an ActivationStash.
//
// `unique` has each element once. What is packed takes its payload and its
// metadata, and is packed only where that is less than the elements; what is
// kept as it is takes its elements. So no sum is above `unique`.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/saved_activations/stash_state.h"

namespace deltapipe {
namespace {

using Form = PackedTensor::Form;

// Of an entry: its shared pointer's counts, its node of entries_ and its
// pointer there.
constexpr int64_t kIndexBytes = 16 + 56 + 16;

/// Of the entry's elements, those that no alias has. Regions that overlap in
/// part are counted in full.
int64_t FreshBytes(const SavedEntry& entry, const at::Tensor& tensor,
                   const std::vector<std::shared_ptr<SavedEntry>>& aliases) {
  int64_t known_bytes = 0;
  for (const auto& alias : aliases) {
    if (!alias->IsOf(tensor)) continue;
    if (alias->region == entry.region || alias->region.Covers(entry.region)) {
      return 0;
    }
    if (entry.region.Covers(alias->region)) known_bytes += alias->raw_bytes;
  }
  return std::max<int64_t>(entry.raw_bytes - known_bytes, 0);
}

}  // namespace

SavedEntry::~SavedEntry() { state->Forget(*this); }

bool SavedEntry::IsOf(const at::Tensor& tensor) const {
  return version == tensor._version() && packed.type == tensor.scalar_type();
}

int64_t MetadataBytes(const MemoryRegion& region) {
  return static_cast<int64_t>(sizeof(SavedEntry) +
                              region.extents.size() *
                                  sizeof(MemoryRegion::Extent)) +
         kIndexBytes;
}

bool GetsSmaller(const SavedEntry& entry, const PackedTensor& packed) {
  return packed.stored_bytes() + MetadataBytes(entry.region) < entry.raw_bytes;
}

void StashState::CountLive(int64_t bytes) {
  live_ += bytes;
  bytes_.live_peak = std::max(bytes_.live_peak, live_);
}

void StashState::CountHost(int64_t bytes, SavedEntry* entry) {
  host_live_ += bytes - entry->host_bytes;
  bytes_.offloaded_peak = std::max(bytes_.offloaded_peak, host_live_);
  entry->host_bytes = bytes;
  entry->report->host_bytes = bytes;
}

void StashState::SetPacked(PackedTensor packed, SavedEntry* entry) {
  const Form form = packed.form;
  const int64_t bytes = packed.stored_bytes();
  const int64_t host_bytes = packed.host_bytes();
  has_offloaded_ |= packed.transfer != nullptr;
  bytes_.offloaded += host_bytes;
  CountHost(host_bytes, entry);
  entry->packed = std::move(packed);
  int64_t& sum = form == Form::kExact || form == Form::kCopy ? bytes_.passed
                                                             : bytes_.packed;
  sum += bytes;
  CountLive(bytes - entry->stored_bytes);
  entry->stored_bytes = bytes;
  entry->report->stored_bytes = bytes;
  // Of what is kept as it is there is a handle, as there is without a stash.
  const bool is_handle = (form == Form::kExact || form == Form::kCopy) &&
                         entry->packed.transfer == nullptr;
  entry->metadata_bytes = is_handle ? 0 : MetadataBytes(entry->region);
  bytes_.metadata += entry->metadata_bytes;
  CountLive(entry->metadata_bytes);
}

void StashState::Forget(const SavedEntry& entry) {
  MutexLock lock(&mutex_);
  live_ -= entry.stored_bytes + entry.metadata_bytes + entry.fetched_bytes;
  host_live_ -= entry.host_bytes;
  if (entry.fetched_bytes > 0) --fetch_.num_fetched;
  const auto found = entries_.find(entry.storage._unsafe_get_target());
  if (found == entries_.end()) return;
  auto& list = found->second;
  list.erase(std::remove_if(list.begin(), list.end(),
                            [](const auto& weak) { return weak.expired(); }),
             list.end());
  if (list.empty()) entries_.erase(found);
}

void StashState::KeepWith(const SavedEntry& kept, SavedEntry* entry) {
  const bool was_copy =
      entry->metadata_bytes == 0 && entry->stored_bytes == entry->raw_bytes;
  (was_copy ? bytes_.passed : bytes_.packed) -= entry->stored_bytes;
  bytes_.metadata -= entry->metadata_bytes;
  CountLive(-entry->stored_bytes - entry->metadata_bytes);
  entry->stored_bytes = 0;
  entry->metadata_bytes = 0;
  entry->report->stored_bytes = 0;
  CountHost(0, entry);
  ForgetFetched(entry);
  entry->unpacked.reset();
  entry->report->reason =
      absl::StrCat("alias of ", kept.report->name, ", which is kept as it is");
}

std::shared_ptr<SavedEntry> StashState::NewEntry(const at::Tensor& tensor,
                                                 const MemoryRegion& region,
                                                 TensorClass tensor_class,
                                                 const SavedTensor& described,
                                                 const Aliases& aliases) {
  auto entry = std::make_shared<SavedEntry>(
      shared_from_this(), WeakStorage(tensor.storage().getWeakStorageImpl()));
  entry->version = tensor._version();
  entry->context = context;
  entry->number = num_entries_++;
  entry->region = region;
  entry->packed.type = tensor.scalar_type();
  entry->raw_bytes =
      region.num_elements * static_cast<int64_t>(tensor.element_size());
  CountName(described);
  entry->report = NewReport(tensor, tensor_class, described);
  entry->report->raw_bytes = entry->raw_bytes;
  bytes_.unique += FreshBytes(*entry, tensor, aliases);
  last_forward_.push_back(entry->report);
  return entry;
}

std::shared_ptr<SavedTensorReport> StashState::NewReport(
    const at::Tensor& tensor, TensorClass tensor_class,
    const SavedTensor& described) {
  SavedTensorReport report;
  report.layer = described.layer;
  report.op = described.op;
  report.name = described.name;
  report.shape = described.shape;
  report.dtype = c10::toString(tensor.scalar_type());
  report.tensor_class = TensorClassName(tensor_class);
  std::shared_ptr<SavedTensorReport>& last = reports_[report.name];
  // Micro-batches in flight speak of theirs in errors.
  const bool is_same = last != nullptr && last->shape == report.shape &&
                       last->dtype == report.dtype;
  if (is_same) {
    *last = std::move(report);
  } else {
    last = std::make_shared<SavedTensorReport>(std::move(report));
  }
  return last;
}

}  // namespace deltapipe
