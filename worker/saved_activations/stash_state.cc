#include "worker/saved_activations/stash_state.h"

#include <algorithm>
#include <utility>

#include "ATen/ops/as_strided.h"
#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"
#include "worker/saved_activations/offered_substitute.h"
#include "worker/saved_activations/saved_scope.h"

namespace deltapipe {
namespace {

// Of RandomKey: activations, their gradients and gradients have 0 to 2.
constexpr uint32_t kDirection = 3;

using Form = PackedTensor::Form;

at::Tensor OnStorage(c10::intrusive_ptr<c10::StorageImpl> storage,
                     at::ScalarType type) {
  at::Tensor tensor =
      at::empty({0}, at::TensorOptions().dtype(type).device(storage->device()));
  return tensor.set_(c10::Storage(std::move(storage)));
}

PackedTensor Exactly(const at::Tensor& tensor) {
  PackedTensor packed = PackedTensor::Of(Form::kExact, tensor);
  packed.kept = tensor.detach();
  return packed;
}

PackedTensor HeldBy(std::function<absl::Status(absl::Span<float>)> read,
                    int64_t num_elements) {
  PackedTensor packed;
  packed.form = Form::kHeld;
  packed.num_elements = num_elements;
  packed.read = std::move(read);
  return packed;
}

/// Whether the entry has the region's elements, exactly if need be.
bool Serves(const SavedEntry& entry, const MemoryRegion& region,
            bool as_it_is) {
  if (entry.packed.form == Form::kExact) return true;
  if (as_it_is && entry.packed.form != Form::kCopy) return false;
  return entry.region == region || entry.region.Covers(region);
}

}  // namespace

bool StashState::IsWeight(const at::Tensor& tensor) const {
  return known.weights.count(tensor.storage().unsafeGetStorageImpl()) > 0;
}

bool StashState::KeepsStorageOf(const at::Tensor& tensor) {
  // Entries that die take the lock: after ours is given back.
  Aliases aliases;
  MutexLock lock(&mutex_);
  FindAliases(tensor, &aliases);
  return std::any_of(aliases.begin(), aliases.end(), [](const auto& entry) {
    return entry->packed.form == Form::kExact;
  });
}

void StashState::NoteRecomputed(int64_t bytes) {
  MutexLock lock(&mutex_);
  CountLive(bytes);
  live_ -= bytes;
  bytes_.recomputed_peak = std::max(bytes_.recomputed_peak, bytes);
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

absl::Status StashState::ReadDevice() {
  MutexLock lock(&mutex_);
  DP_ASSIGN_OR_RETURN(const int64_t num_not_finite, packer_->TakeNotFinite());
  bytes_.num_not_finite += num_not_finite;
  return absl::OkStatus();
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

std::shared_ptr<SavedEntry> StashState::FindServing(
    const at::Tensor& tensor, const MemoryRegion& region, bool as_it_is,
    const Aliases& aliases) const {
  for (const auto& alias : aliases) {
    if (alias->IsOf(tensor) && Serves(*alias, region, as_it_is)) return alias;
  }
  return nullptr;
}

void StashState::CountName(const SavedTensor& described) {
  ++counts[absl::StrCat(described.layer, "/", described.op)];
}

SavedTensor StashState::Describe(const at::Tensor& tensor,
                                 const MemoryRegion& region,
                                 TensorClass tensor_class) const {
  SavedTensor described;
  described.layer = std::string(SavedPart::Current());
  described.op = OperatorOf(tensor);
  const std::string counted = absl::StrCat(described.layer, "/", described.op);
  const auto count = counts.find(counted);
  described.name =
      absl::StrCat(counted, "/", count == counts.end() ? 0 : count->second);
  described.shape = ShapeInMemory(tensor);
  described.num_elements = region.num_elements;
  described.element_bytes = static_cast<int>(tensor.element_size());
  described.keeps_zeros = tensor_class == TensorClass::kRelu;
  described.least_bits = SavedFinely::LeastBits(tensor.const_data_ptr());
  described.substitute = OfferedSubstitute::For(tensor.const_data_ptr());
  return described;
}

void StashState::Keep(const at::Tensor& tensor, std::string reason,
                      const Aliases& aliases, SavedEntry* entry) {
  entry->report->reason = std::move(reason);
  // A copy rather than keep alive more than was asked for.
  if (static_cast<int64_t>(tensor.storage().nbytes()) > entry->raw_bytes) {
    return SetPacked(CopyOf(Flatten(tensor, entry->region)), entry);
  }
  // The storage stays in any case: what was packed of it is needed no more.
  PackedTensor exactly = Exactly(tensor);
  for (const auto& other : aliases) {
    if (!other->IsOf(tensor) || other->packed.form == Form::kExact) continue;
    other->packed = exactly;
    KeepWith(*entry, other.get());
  }
  SetPacked(std::move(exactly), entry);
}

void StashState::KeepExactly(const at::Tensor& tensor, const Aliases& aliases,
                             SavedEntry* entry) {
  absl::StatusOr<std::optional<PackedTensor>> packed =
      packer_->PackExactly(Flatten(tensor, entry->region));
  if (!packed.ok()) {
    Throw(packed.status().code(), *entry, packed.status().message());
  }
  if (!packed->has_value() || !GetsSmaller(*entry, **packed)) {
    return Keep(tensor,
                absl::StrCat(entry->report->tensor_class, ", kept exactly"),
                aliases, entry);
  }
  entry->report->reason =
      (*packed)->form == Form::kBits
          ? "mask: one bit per element"
          : absl::StrCat("integers, exact in ",
                         c10::toString((*packed)->kept.scalar_type()));
  SetPacked(**std::move(packed), entry);
}

const std::shared_ptr<const Codec>& StashState::FineCodec(int bits) {
  std::shared_ptr<const Codec>& codec = fine_codecs_[bits];
  if (codec == nullptr) codec = MakeCodec(GroupCodecText(bits)).value();
  return codec;
}

void StashState::PackWithCodec(const at::Tensor& tensor, SavedTensor described,
                               const Aliases& aliases, SavedEntry* entry) {
  if (meter != nullptr) {
    const at::Tensor values =
        Flatten(tensor, entry->region).to(at::kCPU, at::kFloat);
    meter->NoteSaved(described, {values.const_data_ptr<float>(),
                                 static_cast<size_t>(values.numel())});
  }
  SavedTreatment treatment = this->treatment(described);
  if (treatment.takes_substitute) {
    // The operator could not do with it this time.
    described.substitute = SavedSubstitute::kNone;
    treatment = this->treatment(described);
  }
  if (treatment.codec != nullptr &&
      treatment.codec->traits().bits_per_element < described.least_bits) {
    treatment.codec = FineCodec(described.least_bits);
    treatment.reason = absl::StrCat("of an attention: ", described.least_bits,
                                    " bits or more");
  }
  if (treatment.codec == nullptr && !treatment.is_offloaded) {
    return Keep(tensor, treatment.reason, aliases, entry);
  }
  const at::Tensor flat = Flatten(tensor, entry->region);
  TensorPacker::CodecUse use;
  use.codec = treatment.codec;
  use.key = KeyOf(described.name);
  use.keeps_zeros = described.keeps_zeros;
  use.is_offloaded = treatment.is_offloaded;
  use.is_scratch = flat.data_ptr() != tensor.data_ptr();
  if (treatment.codec != nullptr && treatment.codec->traits().has_memory) {
    use.memory = &memories[described.name];
  }
  PackedTensor packed;
  absl::StatusOr<TensorPacker::Outcome> outcome =
      packer_->PackWithCodec(flat, use, &packed);
  if (!outcome.ok()) {
    Throw(outcome.status().code(), *entry, outcome.status().message());
  }
  if (*outcome == TensorPacker::Outcome::kPacked &&
      !GetsSmaller(*entry, packed)) {
    outcome = TensorPacker::Outcome::kNotSmaller;
  }
  switch (*outcome) {
    case TensorPacker::Outcome::kNotFinite:
      ++bytes_.num_not_finite;
      return Keep(tensor, "has values that are not finite", aliases, entry);
    case TensorPacker::Outcome::kNotSmaller:
      return Keep(
          tensor,
          treatment.codec == nullptr
              ? treatment.reason
              : absl::StrCat("does not get smaller by ", packed.codec->text()),
          aliases, entry);
    case TensorPacker::Outcome::kPacked:
      break;
  }
  entry->report->reason =
      treatment.codec == nullptr
          ? treatment.reason
          : absl::StrCat(treatment.codec->text(), ": ", treatment.reason);
  SetPacked(std::move(packed), entry);
}

RandomKey StashState::KeyOf(const std::string& name) const {
  RandomKey key;
  key.seed = seed_;
  key.tensor_id = static_cast<uint32_t>(
      Checksum({reinterpret_cast<const uint8_t*>(name.data()), name.size()}));
  key.step = static_cast<uint32_t>(context.step);
  key.slot = static_cast<uint32_t>(context.key);
  key.direction = kDirection;
  return key;
}

StashState::Saved StashState::Pack(const at::Tensor& tensor) {
  const MemoryRegion region = RegionOf(tensor);
  TensorClass tensor_class = ClassOf(tensor, region.num_elements, known);
  if (tensor_class == TensorClass::kOther &&
      (c10::isQIntType(tensor.scalar_type()) ||
       tensor.scalar_type() == at::ScalarType::Undefined)) {
    throw SavedActivationError(absl::UnimplementedError(absl::StrCat(
        "saved activation ", SavedPart::Current(), "/", OperatorOf(tensor),
        " [", absl::StrJoin(tensor.sizes(), ","), "] of stage ", context.stage,
        ", step ", context.step, ", micro-batch ", context.microbatch,
        " has the type ", c10::toString(tensor.scalar_type()),
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
  saved.entry = FindServing(tensor, region, as_it_is, aliases);
  if (saved.entry != nullptr) {
    ++bytes_.num_shared;
    ++saved.entry->report->num_aliases;
  } else {
    SavedTensor described = Describe(tensor, region, tensor_class);
    saved.entry = NewEntry(tensor, region, tensor_class, described, aliases);
    SavedEntry* const entry = saved.entry.get();
    entries_[tensor.storage().unsafeGetStorageImpl()].push_back(saved.entry);
    if (tensor.device() != device_) {
      Keep(tensor, absl::StrCat("not on ", device_.str()), aliases, entry);
    } else if (held != nullptr &&
               tensor.storage().unsafeGetStorageImpl() == held &&
               read_held != nullptr && tensor.scalar_type() == at::kFloat &&
               device_.is_cpu() && entry->raw_bytes > MetadataBytes(region)) {
      entry->report->reason = "the boundary's record holds it";
      SetPacked(HeldBy(read_held, region.num_elements), entry);
    } else if (may_be_packed && !as_it_is) {
      PackWithCodec(tensor, std::move(described), aliases, entry);
    } else if ((tensor_class == TensorClass::kMask ||
                tensor_class == TensorClass::kInteger) &&
               region.num_elements >= 64) {
      KeepExactly(tensor, aliases, entry);
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

at::Tensor StashState::UnpackFlat(const std::shared_ptr<SavedEntry>& entry,
                                  Aliases* seen) {
  const PackedTensor& packed = entry->packed;
  if (entry->unpacked.has_value()) {
    if (auto storage = entry->unpacked->lock()) {
      at::Tensor shared = OnStorage(std::move(storage), packed.type);
      packer_->Share(shared);
      return shared;
    }
  }
  if (packed.transfer != nullptr) {
    if (entry->fetched_bytes == 0) FetchNow(entry, seen);
    fetch_.has_begun = true;
    fetch_.reads.push_back(entry->report->name);
  }
  absl::StatusOr<at::Tensor> flat = packer_->Unpack(packed);
  ForgetFetched(entry.get());
  if (!flat.ok()) {
    Throw(absl::StatusCode::kDataLoss, *entry,
          absl::StrCat("its packed bytes cannot be read: ",
                       flat.status().message()));
  }
  // Never a view of something shorter, or of another type.
  if (flat->numel() != packed.num_elements ||
      (packed.form != Form::kHeld && flat->scalar_type() != packed.type)) {
    Throw(
        absl::StatusCode::kDataLoss, *entry,
        absl::StrCat("it was unpacked as ", flat->numel(), " elements of ",
                     c10::toString(flat->scalar_type()), ", expected ",
                     packed.num_elements, " of ", c10::toString(packed.type)));
  }
  if (packed.form != Form::kCopy || packed.transfer != nullptr) {
    entry->unpacked = WeakStorage(flat->storage().getWeakStorageImpl());
  }
  return *std::move(flat);
}

at::Tensor StashState::Unpack(const Saved& saved) {
  const std::shared_ptr<SavedEntry>& entry = saved.entry;
  Aliases seen;
  MutexLock lock(&mutex_);
  FetchAhead(&seen);
  if (meter != nullptr) meter->NoteRead(entry->report->name);
  if (entry->packed.form == Form::kExact) {
    const at::Tensor& kept = entry->packed.kept;
    if (kept._version() != entry->version) {
      Throw(absl::StatusCode::kFailedPrecondition, *entry,
            absl::StrCat("it was changed in place after it was saved (version ",
                         kept._version(), ", saved as ", entry->version,
                         "), so that its gradient would be wrong: change a "
                         "copy of it in the model"));
    }
    return at::as_strided(kept, saved.view.sizes, saved.view.strides,
                          saved.view.offset);
  }
  const StridedView view = ViewInFlat(saved.view, entry->region);
  const at::Tensor flat = UnpackFlat(entry, &seen);
  // While it is used, the next one is on its way.
  FetchAhead(&seen);
  return at::as_strided(flat, view.sizes, view.strides, view.offset);
}

}  // namespace deltapipe
