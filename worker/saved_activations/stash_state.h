// StashState: the entries of an ActivationStash and the accounts of them.
//
// Finds out what a tensor is, packs it or keeps it as it is, and shares what is
// kept among the views of one storage. Held by the stash and by every entry, so
// that graphs may outlive the stash. Members that are public are those of the
// thread that runs forward passes; the functions may be called by any.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_STASH_STATE_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_STASH_STATE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "base/philox.h"
#include "compression/codec.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/gradient_meter.h"
#include "worker/saved_activations/memory_region.h"
#include "worker/saved_activations/packed_tensor.h"
#include "worker/saved_activations/saved_bytes.h"
#include "worker/saved_activations/tensor_class.h"

namespace deltapipe {

using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;

/// What is kept of the elements of one region of a storage.
struct SavedEntry {
  SavedEntry(std::shared_ptr<StashState> state, WeakStorage storage)
      : state(std::move(state)), storage(std::move(storage)) {}
  ~SavedEntry();
  /// Whether it is of what `tensor` is now, on its storage.
  bool IsOf(const at::Tensor& tensor) const;

  // Constant after packing, unless an alias must be kept as it is (Keep).
  const std::shared_ptr<StashState> state;
  // Pins the address, not the memory.
  const WeakStorage storage;
  uint32_t version = 0;
  // In the order of saves.
  int64_t number = 0;
  SavedContext context;
  MemoryRegion region;
  PackedTensor packed;
  // Of all micro-batches' entries of this name.
  std::shared_ptr<SavedTensorReport> report;
  int64_t raw_bytes = 0;
  int64_t stored_bytes = 0;
  int64_t host_bytes = 0;
  // Of them, on the device again.
  int64_t fetched_bytes = 0;
  // 0 of what is kept as it is: a handle, as LibTorch has one itself.
  int64_t metadata_bytes = 0;
  // The unpacked elements, as long as a node still uses them.
  std::optional<WeakStorage> unpacked;
};

/// What keeping track of a packed tensor takes beside its payload. One that
/// does not get smaller by as much is kept as it is.
int64_t MetadataBytes(const MemoryRegion& region);
/// Whether `packed` and its metadata take less than the elements.
bool GetsSmaller(const SavedEntry& entry, const PackedTensor& packed);

/// Shared by the stash and what it has saved.
class StashState : public std::enable_shared_from_this<StashState> {
 public:
  StashState(uint64_t seed, std::unique_ptr<TensorPacker> packer)
      : seed_(seed), device_(packer->device()), packer_(std::move(packer)) {}

  struct Saved {
    std::shared_ptr<SavedEntry> entry;
    StridedView view;
  };
  Saved Pack(const at::Tensor& tensor) DP_EXCLUDES(mutex_);
  at::Tensor Unpack(const Saved& saved) DP_EXCLUDES(mutex_);
  // As in ActivationStash, of tensors that are kept track of.
  bool TakesOutputOf(const at::Tensor& input, const std::function<bool()>& can)
      DP_EXCLUDES(mutex_);
  /// Null: the input is to be saved.
  std::shared_ptr<SavedEntry> KeepDerivative(
      const at::Tensor& input, const std::function<at::Tensor()>& compute)
      DP_EXCLUDES(mutex_);
  /// Flat.
  at::Tensor UnpackDerivative(const std::shared_ptr<SavedEntry>& entry)
      DP_EXCLUDES(mutex_);
  void Forget(const SavedEntry& entry) DP_EXCLUDES(mutex_);
  /// Brings back what was offloaded of a micro-batch, from the last one saved
  /// on or as the pass before read it, as its backward pass gives back memory;
  /// one at a time in any case.
  void Prefetch(const SavedContext& of) DP_EXCLUDES(mutex_);
  /// Counts what the device noted; its errors.
  absl::Status ReadDevice() DP_EXCLUDES(mutex_);
  bool IsWeight(const at::Tensor& tensor) const;
  /// Whether its storage is kept as it is, and so counted.
  bool KeepsStorageOf(const at::Tensor& tensor) DP_EXCLUDES(mutex_);
  /// So many bytes are alive now beside what is kept.
  void NoteRecomputed(int64_t bytes) DP_EXCLUDES(mutex_);

  // Of the thread that runs forward passes.
  KnownTensors known;
  const c10::StorageImpl* held = nullptr;
  std::function<absl::Status(absl::Span<float>)> read_held;
  SavedContext context;
  ActivationStash::Treatment treatment;
  std::map<std::string, int> counts;  // by "layer/op"
  GradientMeter* meter = nullptr;
  bool packs_head = false;
  ActivationStash::Memories memories;
  // Tensors that hooks were asked about in the last forward pass, weights too.
  int64_t num_saves = 0;

  void BeginForward() DP_EXCLUDES(mutex_) {
    counts.clear();
    num_saves = 0;
    MutexLock lock(&mutex_);
    last_forward_.clear();
  }
  int64_t live() const DP_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    return live_;
  }
  SavedBytes TakeBytes() DP_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    SavedBytes bytes = std::exchange(bytes_, SavedBytes());
    bytes_.live_peak = live_;
    bytes_.offloaded_peak = host_live_;
    bytes.scratch_peak = packer_->TakeScratchPeak();
    return bytes;
  }
  std::vector<SavedTensorReport> LastForward() const DP_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    std::vector<SavedTensorReport> reports;
    for (const auto& report : last_forward_) reports.push_back(*report);
    return reports;
  }

 private:
  /// Entries of one storage, version and type, kept alive: the last to let go
  /// of an entry must not hold the lock.
  using Aliases = std::vector<std::shared_ptr<SavedEntry>>;
  void FindAliases(const at::Tensor& tensor, Aliases* aliases)
      DP_REQUIRES(mutex_);
  /// The one of them that has the region's elements, exactly if need be.
  std::shared_ptr<SavedEntry> FindServing(const at::Tensor& tensor,
                                          const MemoryRegion& region,
                                          bool as_it_is,
                                          const Aliases& aliases) const
      DP_REQUIRES(mutex_);
  /// What a policy is told, with the name that the next entry of it gets.
  SavedTensor Describe(const at::Tensor& tensor, const MemoryRegion& region,
                       TensorClass tensor_class) const;
  /// Of a tensor whose operator could do with something else; nothing if that
  /// is not for the policy to decide.
  std::optional<SavedTensor> DescribeForOperator(
      const at::Tensor& input, const MemoryRegion& region,
      SavedSubstitute substitute) const;
  void CountName(const SavedTensor& described);
  /// Among the aliases only once it is put into entries_. What they have of the
  /// region is not counted again.
  std::shared_ptr<SavedEntry> NewEntry(const at::Tensor& tensor,
                                       const MemoryRegion& region,
                                       TensorClass tensor_class,
                                       const SavedTensor& described,
                                       const Aliases& aliases)
      DP_REQUIRES(mutex_);
  std::shared_ptr<SavedTensorReport> NewReport(const at::Tensor& tensor,
                                               TensorClass tensor_class,
                                               const SavedTensor& described)
      DP_REQUIRES(mutex_);
  void Keep(const at::Tensor& tensor, std::string reason,
            const Aliases& aliases, SavedEntry* entry) DP_REQUIRES(mutex_);
  void KeepExactly(const at::Tensor& tensor, const Aliases& aliases,
                   SavedEntry* entry) DP_REQUIRES(mutex_);
  void PackWithCodec(const at::Tensor& tensor, SavedTensor described,
                     const Aliases& aliases, SavedEntry* entry)
      DP_REQUIRES(mutex_);
  void SetPacked(PackedTensor packed, SavedEntry* entry) DP_REQUIRES(mutex_);
  /// The storage of the entry stays as it is: so does what it has.
  void KeepWith(const SavedEntry& kept, SavedEntry* entry) DP_REQUIRES(mutex_);
  void CountLive(int64_t bytes) DP_REQUIRES(mutex_);
  /// As far as there is room; what it looked at goes to `seen`.
  void FetchAhead(Aliases* seen) DP_REQUIRES(mutex_);
  /// For a read of it; gives back others that were fetched ahead, where there
  /// is no room for both.
  void FetchNow(const std::shared_ptr<SavedEntry>& entry, Aliases* seen)
      DP_REQUIRES(mutex_);
  void Fetch(const std::shared_ptr<SavedEntry>& entry) DP_REQUIRES(mutex_);
  void ForgetFetched(SavedEntry* entry) DP_REQUIRES(mutex_);
  void CountHost(int64_t bytes, SavedEntry* entry) DP_REQUIRES(mutex_);
  std::string Where(const SavedEntry& entry) const;
  [[noreturn]] void Throw(absl::StatusCode code, const SavedEntry& entry,
                          absl::string_view what) const;
  at::Tensor UnpackFlat(const std::shared_ptr<SavedEntry>& entry, Aliases* seen)
      DP_REQUIRES(mutex_);
  RandomKey KeyOf(const std::string& name) const;
  /// In place of one that is too coarse for the tensor.
  const std::shared_ptr<const Codec>& FineCodec(int bits);

  const uint64_t seed_;
  const at::Device device_;
  std::map<int, std::shared_ptr<const Codec>> fine_codecs_;

  mutable Mutex mutex_;
  // By name: one for each tensor of a stage, whatever is in flight.
  std::map<std::string, std::shared_ptr<SavedTensorReport>> reports_
      DP_GUARDED_BY(mutex_);
  std::unordered_map<const c10::StorageImpl*,
                     std::vector<std::weak_ptr<SavedEntry>>>
      entries_ DP_GUARDED_BY(mutex_);
  int64_t live_ DP_GUARDED_BY(mutex_) = 0;
  // In host memory, and no part of live_.
  int64_t host_live_ DP_GUARDED_BY(mutex_) = 0;
  SavedBytes bytes_ DP_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<SavedTensorReport>> last_forward_
      DP_GUARDED_BY(mutex_);
  const std::unique_ptr<TensorPacker> packer_ DP_GUARDED_BY(mutex_);
  bool has_offloaded_ DP_GUARDED_BY(mutex_) = false;
  int64_t num_entries_ DP_GUARDED_BY(mutex_) = 0;

  struct Fetching {
    // Those of the micro-batch that are still to come, the next one last.
    std::vector<std::weak_ptr<SavedEntry>> next;
    // In the order of fetches; of those that were read meanwhile, too.
    std::vector<std::weak_ptr<SavedEntry>> fetched;
    // What was alive when its backward pass began.
    int64_t level = 0;
    bool has_begun = false;  // one was read
    int num_fetched = 0;     // and not read yet
    // Names, as this pass has read them, and the order of the one before.
    std::vector<std::string> reads;
    std::map<std::string, size_t> places;
  };
  Fetching fetch_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_STASH_STATE_H_
