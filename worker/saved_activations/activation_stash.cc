#include "worker/saved_activations/activation_stash.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "ATen/core/grad_mode.h"
#include "ATen/ops/aminmax.h"
#include "ATen/ops/as_strided.h"
#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checksum.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"
#include "torch/csrc/autograd/saved_variable_hooks.h"
#include "worker/saved_activations/bit_mask.h"
#include "worker/saved_activations/memory_region.h"
#include "worker/saved_activations/saved_scope.h"
#include "worker/saved_activations/tensor_class.h"

namespace deltapipe {
namespace {

// Of RandomKey: activations, their gradients and gradients have 0 to 2.
constexpr uint32_t kDirection = 3;
// A view that must be kept as it is is copied rather than keep alive a storage
// so many times as large.
constexpr int64_t kLargestPinned = 2;

enum class Form {
  kExact,   // the storage is kept
  kCopy,    // its elements, in memory order
  kCodec,   // a codec's payload, after a mask where zeros are kept
  kBits,    // one bit per bool
  kNarrow,  // integers of fewer bytes
  kHeld,    // nothing: an input that somebody keeps anyway
};

using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;

at::Tensor OnStorage(c10::intrusive_ptr<c10::StorageImpl> storage,
                     at::ScalarType type) {
  at::Tensor tensor = at::empty({0}, at::TensorOptions().dtype(type));
  return tensor.set_(c10::Storage(std::move(storage)));
}

bool IsFinite(absl::Span<const float> values) {
  constexpr uint32_t kExponent = 0x7F800000u;
  // Without a branch, so that the loop is vectorised; in pieces, so that a NaN
  // at the beginning is found at once.
  for (size_t begin = 0; begin < values.size(); begin += 4096) {
    const size_t end = std::min(begin + 4096, values.size());
    uint32_t not_finite = 0;
    for (size_t i = begin; i < end; ++i) {
      uint32_t bits;
      std::memcpy(&bits, &values[i], sizeof(bits));
      not_finite |= (bits & kExponent) == kExponent ? 1u : 0u;
    }
    if (not_finite != 0) return false;
  }
  return true;
}

at::ScalarType NarrowestType(const at::Tensor& integers) {
  const auto [least, most] = at::aminmax(integers);
  const int64_t low = least.item<int64_t>();
  const int64_t high = most.item<int64_t>();
  if (low >= 0 && high <= 255) return at::kByte;
  if (low >= std::numeric_limits<int16_t>::min() &&
      high <= std::numeric_limits<int16_t>::max()) {
    return at::kShort;
  }
  if (low >= std::numeric_limits<int32_t>::min() &&
      high <= std::numeric_limits<int32_t>::max()) {
    return at::kInt;
  }
  return at::kLong;
}

absl::Span<float> Floats(const at::Tensor& flat) {
  return {flat.data_ptr<float>(), static_cast<size_t>(flat.numel())};
}
absl::Span<uint8_t> Bytes(const at::Tensor& flat) {
  return {flat.data_ptr<uint8_t>(), static_cast<size_t>(flat.numel())};
}

}  // namespace

/// What is kept of the elements of one region of a storage.
struct SavedEntry {
  SavedEntry(std::shared_ptr<StashState> state, WeakStorage storage)
      : state(std::move(state)), storage(std::move(storage)) {}
  ~SavedEntry();

  // Constant after packing, unless an alias must be kept as it is (Keep).
  const std::shared_ptr<StashState> state;
  // Pins the address, not the memory.
  const WeakStorage storage;
  uint32_t version = 0;
  SavedContext context;
  MemoryRegion region;
  at::ScalarType type = at::kFloat;
  Form form = Form::kExact;
  at::Tensor kept;  // kExact: on the storage; else one-dimensional
  at::Tensor mask;  // kCodec: which elements are not zero
  std::shared_ptr<const Codec> codec;
  std::function<absl::Status(absl::Span<float>)> read;  // kHeld
  std::shared_ptr<SavedTensorReport> report;
  int64_t stored_bytes = 0;
  int64_t metadata_bytes = 0;
  // The unpacked elements, as long as a node still uses them.
  std::optional<WeakStorage> unpacked;
};

/// Shared by the stash and what it has saved.
class StashState : public std::enable_shared_from_this<StashState> {
 public:
  explicit StashState(uint64_t seed) : seed_(seed) {}

  struct Saved {
    std::shared_ptr<SavedEntry> entry;
    StridedView view;
  };
  Saved Pack(const at::Tensor& tensor) DP_EXCLUDES(mutex_);
  at::Tensor Unpack(const Saved& saved) DP_EXCLUDES(mutex_);
  void Forget(const SavedEntry& entry) DP_EXCLUDES(mutex_);
  bool IsWeight(const at::Tensor& tensor) const;

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

  void BeginForward() DP_EXCLUDES(mutex_) {
    counts.clear();
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
  std::shared_ptr<SavedEntry> NewEntry(const at::Tensor& tensor,
                                       const MemoryRegion& region,
                                       TensorClass tensor_class)
      DP_REQUIRES(mutex_);
  void Keep(const at::Tensor& tensor, std::string reason,
            const Aliases& aliases, SavedEntry* entry) DP_REQUIRES(mutex_);
  void KeepBits(const at::Tensor& tensor, SavedEntry* entry)
      DP_REQUIRES(mutex_);
  void KeepNarrow(const at::Tensor& tensor, const Aliases& aliases,
                  SavedEntry* entry) DP_REQUIRES(mutex_);
  void PackWithCodec(const at::Tensor& tensor, const Aliases& aliases,
                     SavedEntry* entry) DP_REQUIRES(mutex_);
  void SetStored(int64_t bytes, SavedEntry* entry) DP_REQUIRES(mutex_);
  void CountLive(int64_t bytes) DP_REQUIRES(mutex_);
  std::string Where(const SavedEntry& entry) const;
  [[noreturn]] void Throw(absl::StatusCode code, const SavedEntry& entry,
                          absl::string_view what) const;
  at::Tensor UnpackFlat(SavedEntry* entry) DP_REQUIRES(mutex_);
  /// In place of one that is too coarse for the tensor.
  const std::shared_ptr<const Codec>& FineCodec(int bits);
  std::shared_ptr<const Codec> WithZeros(
      const std::shared_ptr<const Codec>& codec);

  const uint64_t seed_;
  std::map<std::string, std::shared_ptr<const Codec>> zero_keepers_;
  std::map<int, std::shared_ptr<const Codec>> fine_codecs_;

  mutable Mutex mutex_;
  std::unordered_map<const c10::StorageImpl*,
                     std::vector<std::weak_ptr<SavedEntry>>>
      entries_ DP_GUARDED_BY(mutex_);
  int64_t live_ DP_GUARDED_BY(mutex_) = 0;
  SavedBytes bytes_ DP_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<SavedTensorReport>> last_forward_
      DP_GUARDED_BY(mutex_);
  std::vector<uint8_t> scratch_ DP_GUARDED_BY(mutex_);
};

SavedEntry::~SavedEntry() { state->Forget(*this); }

namespace {

/// Whether the entry is of what `tensor` is now, on its storage.
bool IsOf(const SavedEntry& entry, const at::Tensor& tensor) {
  return entry.version == tensor._version() &&
         entry.type == tensor.scalar_type();
}

/// Whether the entry has the region's elements, exactly if need be.
bool Serves(const SavedEntry& entry, const MemoryRegion& region,
            bool as_it_is) {
  if (entry.form == Form::kExact) return true;
  if (as_it_is && entry.form != Form::kCopy) return false;
  return entry.region == region || entry.region.Covers(region);
}

}  // namespace

bool StashState::IsWeight(const at::Tensor& tensor) const {
  return known.weights.count(tensor.storage().unsafeGetStorageImpl()) > 0;
}

std::string StashState::Where(const SavedEntry& entry) const {
  return absl::StrCat(entry.report->name, " (", entry.report->op, " ",
                      entry.report->dtype, " [",
                      absl::StrJoin(entry.report->shape, ","), "]) of stage ",
                      entry.context.stage, ", step ", entry.context.step,
                      ", micro-batch ", entry.context.microbatch);
}

void StashState::Throw(absl::StatusCode code, const SavedEntry& entry,
                       absl::string_view what) const {
  throw SavedActivationError(absl::Status(
      code, absl::StrCat("saved activation ", Where(entry), ": ", what)));
}

void StashState::CountLive(int64_t bytes) {
  live_ += bytes;
  bytes_.live_peak = std::max(bytes_.live_peak, live_);
}

void StashState::SetStored(int64_t bytes, SavedEntry* entry) {
  int64_t& sum = entry->form == Form::kExact || entry->form == Form::kCopy
                     ? bytes_.passed
                     : bytes_.packed;
  sum += bytes;
  CountLive(bytes - entry->stored_bytes);
  entry->stored_bytes = bytes;
  entry->report->stored_bytes = bytes;
}

void StashState::Forget(const SavedEntry& entry) {
  MutexLock lock(&mutex_);
  live_ -= entry.stored_bytes + entry.metadata_bytes;
  const auto found = entries_.find(entry.storage._unsafe_get_target());
  if (found == entries_.end()) return;
  auto& list = found->second;
  list.erase(std::remove_if(list.begin(), list.end(),
                            [](const auto& weak) { return weak.expired(); }),
             list.end());
  if (list.empty()) entries_.erase(found);
}

void StashState::FindAliases(const at::Tensor& tensor, Aliases* aliases) {
  const auto found = entries_.find(tensor.storage().unsafeGetStorageImpl());
  if (found == entries_.end()) return;
  for (const auto& weak : found->second) {
    std::shared_ptr<SavedEntry> entry = weak.lock();
    if (entry == nullptr) continue;
    aliases->push_back(std::move(entry));
  }
}

std::shared_ptr<SavedEntry> StashState::NewEntry(const at::Tensor& tensor,
                                                 const MemoryRegion& region,
                                                 TensorClass tensor_class) {
  auto entry = std::make_shared<SavedEntry>(
      shared_from_this(), WeakStorage(tensor.storage().getWeakStorageImpl()));
  entry->version = tensor._version();
  entry->context = context;
  entry->region = region;
  entry->type = tensor.scalar_type();
  entry->report = std::make_shared<SavedTensorReport>();
  SavedTensorReport& report = *entry->report;
  report.layer = std::string(SavedPart::Current());
  report.op = OperatorOf(tensor);
  report.name = absl::StrCat(report.layer, "/", report.op);
  absl::StrAppend(&report.name, "/", counts[report.name]++);
  report.shape = ShapeInMemory(tensor);
  report.dtype = c10::toString(tensor.scalar_type());
  report.tensor_class = TensorClassName(tensor_class);
  report.raw_bytes =
      region.num_elements * static_cast<int64_t>(tensor.element_size());
  bytes_.unique += report.raw_bytes;
  entry->metadata_bytes = static_cast<int64_t>(
      sizeof(SavedEntry) + sizeof(SavedTensorReport) + report.name.size() +
      region.extents.size() * sizeof(MemoryRegion::Extent));
  bytes_.metadata += entry->metadata_bytes;
  CountLive(entry->metadata_bytes);
  entries_[tensor.storage().unsafeGetStorageImpl()].push_back(entry);
  last_forward_.push_back(entry->report);
  return entry;
}

void StashState::Keep(const at::Tensor& tensor, std::string reason,
                      const Aliases& aliases, SavedEntry* entry) {
  entry->report->reason = std::move(reason);
  const int64_t storage_bytes = static_cast<int64_t>(tensor.storage().nbytes());
  if (storage_bytes > kLargestPinned * entry->report->raw_bytes) {
    entry->form = Form::kCopy;
    entry->kept = Flatten(tensor, entry->region).clone();
    SetStored(static_cast<int64_t>(entry->kept.nbytes()), entry);
    return;
  }
  entry->form = Form::kExact;
  entry->kept = tensor.detach();
  SetStored(storage_bytes, entry);
  // The storage stays in any case: what was packed of it is needed no more.
  for (const auto& other : aliases) {
    if (!IsOf(*other, tensor) || other->form == Form::kExact) continue;
    SetStored(0, other.get());
    other->form = Form::kExact;
    other->kept = entry->kept;
    other->mask = at::Tensor();
    other->unpacked.reset();
    other->report->reason = absl::StrCat("alias of ", entry->report->name,
                                         ", which is kept as it is");
  }
}

void StashState::KeepBits(const at::Tensor& tensor, SavedEntry* entry) {
  const at::Tensor flat = Flatten(tensor, entry->region).contiguous();
  entry->form = Form::kBits;
  entry->kept = at::empty({BitMaskBytes(flat.numel())}, at::kByte);
  PackBits({reinterpret_cast<const uint8_t*>(flat.data_ptr<bool>()),
            static_cast<size_t>(flat.numel())},
           Bytes(entry->kept));
  entry->report->reason = "mask: one bit per element";
  SetStored(entry->kept.numel(), entry);
}

void StashState::KeepNarrow(const at::Tensor& tensor, const Aliases& aliases,
                            SavedEntry* entry) {
  const at::Tensor flat = Flatten(tensor, entry->region);
  const at::ScalarType narrow = NarrowestType(flat);
  if (c10::elementSize(narrow) >= tensor.element_size()) {
    return Keep(tensor, "integers, kept exactly", aliases, entry);
  }
  entry->form = Form::kNarrow;
  entry->kept = flat.to(narrow);
  entry->report->reason =
      absl::StrCat("integers, exact in ", c10::toString(narrow));
  SetStored(static_cast<int64_t>(entry->kept.nbytes()), entry);
}

const std::shared_ptr<const Codec>& StashState::FineCodec(int bits) {
  std::shared_ptr<const Codec>& codec = fine_codecs_[bits];
  if (codec == nullptr) codec = MakeCodec(GroupCodecText(bits)).value();
  return codec;
}

std::shared_ptr<const Codec> StashState::WithZeros(
    const std::shared_ptr<const Codec>& codec) {
  // Codecs that know rows, planes or heads need the zeros in their places.
  const auto spec = ParseCodecSpec(codec->text());
  if (!spec.ok() || codec->traits().has_memory ||
      (spec->name != "int" && spec->name != "luq" && spec->name != "fp" &&
       spec->name != "cast" && spec->name != "error_bound")) {
    return nullptr;
  }
  std::shared_ptr<const Codec>& kept = zero_keepers_[codec->text()];
  if (kept == nullptr) {
    auto made = MakeCodec(absl::StrCat("nonzero(", codec->text(), ")"));
    if (made.ok()) kept = std::move(*made);
  }
  return kept;
}

void StashState::PackWithCodec(const at::Tensor& tensor, const Aliases& aliases,
                               SavedEntry* entry) {
  SavedTensor described;
  described.name = entry->report->name;
  described.layer = entry->report->layer;
  described.op = entry->report->op;
  described.shape = entry->report->shape;
  described.num_elements = entry->region.num_elements;
  described.element_bytes = static_cast<int>(tensor.element_size());
  described.keeps_zeros =
      entry->report->tensor_class == TensorClassName(TensorClass::kRelu);
  described.least_bits = SavedFinely::LeastBits(tensor.const_data_ptr());
  if (meter != nullptr) {
    meter->NoteSaved(described,
                     Floats(Flatten(tensor, entry->region).to(at::kFloat)));
  }
  SavedTreatment treatment = this->treatment(described);
  if (treatment.codec != nullptr &&
      treatment.codec->traits().bits_per_element < described.least_bits) {
    treatment.codec = FineCodec(described.least_bits);
    treatment.reason = absl::StrCat("of an attention: ", described.least_bits,
                                    " bits or more");
  }
  if (treatment.codec == nullptr) {
    return Keep(tensor, treatment.reason, aliases, entry);
  }
  const at::Tensor flat = Flatten(tensor, entry->region).to(at::kFloat);
  if (!IsFinite(Floats(flat))) {
    ++bytes_.num_not_finite;
    return Keep(tensor, "has values that are not finite", aliases, entry);
  }
  entry->form = Form::kCodec;
  entry->codec = treatment.codec;
  entry->report->reason =
      absl::StrCat(treatment.codec->text(), ": ", treatment.reason);
  if (described.keeps_zeros) {
    if (std::shared_ptr<const Codec> keeper = WithZeros(treatment.codec)) {
      entry->codec = std::move(keeper);
    } else {
      entry->mask = at::empty({BitMaskBytes(flat.numel())}, at::kByte);
      PackNonzeros(Floats(flat), Bytes(entry->mask));
    }
  }
  const Codec& codec = *entry->codec;
  RandomKey key;
  key.seed = seed_;
  key.tensor_id = static_cast<uint32_t>(
      Checksum({reinterpret_cast<const uint8_t*>(described.name.data()),
                described.name.size()}));
  key.step = static_cast<uint32_t>(entry->context.step);
  key.slot = static_cast<uint32_t>(entry->context.key);
  key.direction = kDirection;
  const int64_t most = codec.MaxPayloadBytes(flat.numel());
  const Codec::Traits traits = codec.traits();
  absl::Span<uint8_t> out;
  if (traits.has_fixed_size) {
    entry->kept = at::empty({most}, at::kByte);
    out = Bytes(entry->kept);
  } else {
    if (static_cast<int64_t>(scratch_.size()) < most) {
      scratch_.resize(static_cast<size_t>(most));
    }
    out = absl::MakeSpan(scratch_);
  }
  const absl::StatusOr<int64_t> size =
      traits.has_memory
          ? codec.EncodeNext(Floats(flat), key, &memories[described.name], out)
          : codec.Encode(Floats(flat), key, out);
  if (!size.ok()) Throw(size.status().code(), *entry, size.status().message());
  const bool is_copy = flat.data_ptr() != tensor.data_ptr();
  bytes_.scratch_peak = std::max<int64_t>(
      bytes_.scratch_peak, static_cast<int64_t>(scratch_.size()) +
                               (is_copy ? int64_t(flat.nbytes()) : 0));
  const int64_t mask_bytes = entry->mask.defined() ? entry->mask.numel() : 0;
  if (*size + mask_bytes >= entry->report->raw_bytes) {
    entry->kept = at::Tensor();
    entry->mask = at::Tensor();
    return Keep(tensor, absl::StrCat("does not get smaller by ", codec.text()),
                aliases, entry);
  }
  if (!traits.has_fixed_size) {
    entry->kept = at::empty({*size}, at::kByte);
    std::memcpy(entry->kept.data_ptr(), scratch_.data(),
                static_cast<size_t>(*size));
  }
  SetStored(*size + mask_bytes, entry);
}

StashState::Saved StashState::Pack(const at::Tensor& tensor) {
  const MemoryRegion region = RegionOf(tensor);
  TensorClass tensor_class = ClassOf(tensor, region.num_elements, known);
  if (tensor_class == TensorClass::kOther &&
      (c10::isQIntType(tensor.scalar_type()) ||
       tensor.scalar_type() == at::ScalarType::Undefined)) {
    throw SavedActivationError(absl::UnimplementedError(absl::StrCat(
        "saved activation ", SavedPart::Current(), "/", OperatorOf(tensor),
        " of stage ", context.stage, ", step ", context.step, ", micro-batch ",
        context.microbatch, " has the type ",
        c10::toString(tensor.scalar_type()),
        ", which is not known here: use compression.saved_activations: none")));
  }
  const absl::string_view scope_reason =
      packs_head ? "" : SavedAsTheyAre::Current();
  if (packs_head && tensor_class == TensorClass::kHead) {
    tensor_class = TensorClass::kActivation;
  }
  const bool may_be_packed = tensor_class == TensorClass::kActivation ||
                             tensor_class == TensorClass::kRelu;
  if (may_be_packed && !scope_reason.empty()) tensor_class = TensorClass::kHead;
  const bool as_it_is = tensor_class == TensorClass::kHead ||
                        tensor_class == TensorClass::kStatistic ||
                        tensor_class == TensorClass::kSmall ||
                        tensor_class == TensorClass::kOther;

  // An entry that dies takes the lock: it must do so after ours is given back.
  Saved saved;
  Aliases aliases;
  MutexLock lock(&mutex_);
  FindAliases(tensor, &aliases);
  ++bytes_.num_tensors;
  bytes_.raw += tensor.numel() * static_cast<int64_t>(tensor.element_size());
  for (const auto& alias : aliases) {
    if (IsOf(*alias, tensor) && Serves(*alias, region, as_it_is)) {
      saved.entry = alias;
      break;
    }
  }
  if (saved.entry != nullptr) {
    ++bytes_.num_shared;
    ++saved.entry->report->num_aliases;
  } else {
    saved.entry = NewEntry(tensor, region, tensor_class);
    SavedEntry* const entry = saved.entry.get();
    if (held != nullptr && tensor.storage().unsafeGetStorageImpl() == held &&
        read_held != nullptr && tensor.scalar_type() == at::kFloat) {
      entry->form = Form::kHeld;
      entry->read = read_held;
      entry->report->reason = "the boundary's record holds it";
      SetStored(0, entry);
    } else if (may_be_packed && !as_it_is) {
      PackWithCodec(tensor, aliases, entry);
    } else if (tensor_class == TensorClass::kMask &&
               region.num_elements >= 64) {
      KeepBits(tensor, entry);
    } else if (tensor_class == TensorClass::kInteger &&
               region.num_elements >= 64) {
      KeepNarrow(tensor, aliases, entry);
    } else {
      Keep(tensor,
           !scope_reason.empty() ? std::string(scope_reason)
                                 : TensorClassName(tensor_class),
           aliases, entry);
    }
  }
  saved.view = ViewOf(tensor);
  return saved;
}

at::Tensor StashState::UnpackFlat(SavedEntry* entry) {
  if (entry->form == Form::kCopy) return entry->kept;
  if (entry->unpacked.has_value()) {
    if (auto storage = entry->unpacked->lock()) {
      return OnStorage(std::move(storage), entry->type);
    }
  }
  const int64_t count = entry->region.num_elements;
  at::Tensor flat;
  switch (entry->form) {
    case Form::kNarrow:
      flat = entry->kept.to(entry->type);
      break;
    case Form::kBits:
      flat = at::empty({count}, at::kBool);
      UnpackBits(Bytes(entry->kept),
                 {reinterpret_cast<uint8_t*>(flat.data_ptr<bool>()),
                  static_cast<size_t>(count)});
      break;
    default: {
      at::Tensor values = at::empty({count}, at::kFloat);
      const absl::Status status =
          entry->form == Form::kHeld
              ? entry->read(Floats(values))
              : entry->codec->Decode(Bytes(entry->kept), Floats(values));
      if (!status.ok()) {
        Throw(absl::StatusCode::kDataLoss, *entry,
              absl::StrCat("its packed bytes cannot be read: ",
                           status.message()));
      }
      if (entry->mask.defined()) {
        RestoreZeros(Bytes(entry->mask), Floats(values));
      }
      flat = values.to(entry->type);
      if (flat.data_ptr() != values.data_ptr()) {
        bytes_.scratch_peak = std::max<int64_t>(
            bytes_.scratch_peak, static_cast<int64_t>(values.nbytes()));
      }
    }
  }
  entry->unpacked = WeakStorage(flat.storage().getWeakStorageImpl());
  return flat;
}

at::Tensor StashState::Unpack(const Saved& saved) {
  SavedEntry* const entry = saved.entry.get();
  MutexLock lock(&mutex_);
  if (meter != nullptr) meter->NoteRead(entry->report->name);
  if (entry->form == Form::kExact) {
    if (entry->kept._version() != entry->version) {
      Throw(absl::StatusCode::kFailedPrecondition, *entry,
            absl::StrCat("it was changed in place after it was saved (version ",
                         entry->kept._version(), ", saved as ", entry->version,
                         "), so that its gradient would be wrong: change a "
                         "copy of it in the model"));
    }
    return at::as_strided(entry->kept, saved.view.sizes, saved.view.strides,
                          saved.view.offset);
  }
  const StridedView view = ViewInFlat(saved.view, entry->region);
  return at::as_strided(UnpackFlat(entry), view.sizes, view.strides,
                        view.offset);
}

namespace {

/// One save of one tensor.
class StashHooks : public torch::autograd::SavedVariableHooks {
 public:
  explicit StashHooks(std::shared_ptr<StashState> state)
      : state_(std::move(state)) {}

  void call_pack_hook(const at::Tensor& tensor) override {
    at::NoGradGuard no_grad;
    HookSourceScope no_hooks(nullptr);
    // Neither weights nor what has no strides or no elements is kept track of.
    if (!tensor.has_storage() || tensor.layout() != at::kStrided ||
        tensor.numel() == 0 || state_->IsWeight(tensor)) {
      exact_ = tensor.detach();
      version_ = tensor._version();
      return;
    }
    saved_ = state_->Pack(tensor);
  }

  at::Tensor call_unpack_hook() override {
    at::NoGradGuard no_grad;
    HookSourceScope no_hooks(nullptr);
    if (saved_.entry != nullptr) return state_->Unpack(saved_);
    if (exact_._version() != version_) {
      throw SavedActivationError(absl::FailedPreconditionError(absl::StrCat(
          "a weight of sizes [", absl::StrJoin(exact_.sizes(), ","),
          "] was changed in place between forward and backward")));
    }
    return exact_;
  }

 private:
  const std::shared_ptr<StashState> state_;
  StashState::Saved saved_;
  at::Tensor exact_;
  uint32_t version_ = 0;
};

}  // namespace

ActivationStash::ActivationStash(std::unique_ptr<SavedPolicy> policy,
                                 uint64_t seed)
    : policy_(std::move(policy)), state_(std::make_shared<StashState>(seed)) {
  InstallHookEngine();
}

ActivationStash::~ActivationStash() = default;

void ActivationStash::SetWeights(const std::vector<at::Tensor>& weights) {
  state_->known.weights.clear();
  for (const at::Tensor& weight : weights) {
    state_->known.weights.insert(weight.storage().unsafeGetStorageImpl());
  }
}

void ActivationStash::SetInput(const at::Tensor& tensor) {
  state_->known.inputs = {tensor.storage().unsafeGetStorageImpl()};
  state_->held = nullptr;
  state_->read_held = nullptr;
}

void ActivationStash::SetHeldInput(
    const at::Tensor& tensor,
    std::function<absl::Status(absl::Span<float>)> read) {
  SetInput(tensor);
  state_->held = tensor.storage().unsafeGetStorageImpl();
  state_->read_held = std::move(read);
}

void ActivationStash::PackHeadForTest() { state_->packs_head = true; }

void ActivationStash::SetPolicy(std::unique_ptr<SavedPolicy> policy) {
  policy_ = std::move(policy);
}

void ActivationStash::SetMeter(GradientMeter* meter) { state_->meter = meter; }

const ActivationStash::Memories& ActivationStash::memories() const {
  return state_->memories;
}
void ActivationStash::SetMemories(Memories memories) {
  state_->memories = std::move(memories);
}

int64_t ActivationStash::live_bytes() const { return state_->live(); }
SavedBytes ActivationStash::TakeBytes() { return state_->TakeBytes(); }
std::vector<SavedTensorReport> ActivationStash::LastForward() const {
  return state_->LastForward();
}

std::unique_ptr<torch::autograd::SavedVariableHooks>
ActivationStash::MakeHooks() {
  return std::make_unique<StashHooks>(state_);
}

ActivationStash::Scope::Scope(ActivationStash* stash,
                              const SavedContext& context, Treatment treatment)
    : stash_(stash), hooks_(stash) {
  stash_->state_->context = context;
  stash_->state_->treatment = treatment != nullptr
                                  ? std::move(treatment)
                                  : [stash](const SavedTensor& tensor) {
                                      return stash->policy_->Treat(tensor);
                                    };
  stash_->state_->BeginForward();
}

ActivationStash::Scope::~Scope() { stash_->state_->treatment = nullptr; }

}  // namespace deltapipe
