// What operators of ours keep in the place of a tensor that they would save.
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/saved_activations/saved_scope.h"
#include "worker/saved_activations/stash_state.h"

namespace deltapipe {

std::optional<SavedTensor> StashState::DescribeForOperator(
    const at::Tensor& input, const MemoryRegion& region,
    SavedSubstitute substitute) const {
  const TensorClass tensor_class = ClassOf(input, region.num_elements, known);
  if ((tensor_class != TensorClass::kActivation &&
       tensor_class != TensorClass::kRelu) ||
      !SavedAsTheyAre::Current().empty() || input.device() != device_ ||
      region.num_elements != input.numel()) {
    return std::nullopt;
  }
  SavedTensor described = Describe(input, region, tensor_class);
  described.substitute = substitute;
  return described;
}

bool StashState::TakesOutputOf(const at::Tensor& input,
                               const std::function<bool()>& can) {
  const std::optional<SavedTensor> described =
      DescribeForOperator(input, RegionOf(input), SavedSubstitute::kOutput);
  if (!described.has_value()) return false;
  {
    MutexLock lock(&mutex_);
    if (!treatment(*described).takes_substitute) return false;
  }
  if (!can()) return false;
  // Those of later tensors are as if it had been saved.
  CountName(*described);
  return true;
}

std::shared_ptr<SavedEntry> StashState::KeepDerivative(
    const at::Tensor& input, const std::function<at::Tensor()>& compute) {
  const MemoryRegion region = RegionOf(input);
  const std::optional<SavedTensor> described =
      DescribeForOperator(input, region, SavedSubstitute::kDerivative);
  if (!described.has_value()) return nullptr;
  // Entries that die take the lock: after ours is given back.
  std::shared_ptr<SavedEntry> entry;
  Aliases aliases;
  SavedTreatment treatment;
  {
    MutexLock lock(&mutex_);
    FindAliases(input, &aliases);
    if (FindServing(input, region, /*as_it_is=*/false, aliases) != nullptr) {
      return nullptr;
    }
    treatment = this->treatment(*described);
  }
  if (!treatment.takes_substitute || treatment.codec == nullptr) return nullptr;
  const at::Tensor flat = compute().contiguous().flatten();
  TensorPacker::CodecUse use;
  use.codec = treatment.codec;
  use.key = KeyOf(described->name);
  use.is_scratch = true;
  const int64_t raw_bytes =
      input.numel() * static_cast<int64_t>(input.element_size());
  PackedTensor packed;

  MutexLock lock(&mutex_);
  const absl::StatusOr<TensorPacker::Outcome> outcome =
      packer_->PackWithCodec(flat, use, &packed);
  if (!outcome.ok()) {
    throw SavedActivationError(absl::Status(
        outcome.status().code(),
        absl::StrCat("saved activation ", described->name, " of stage ",
                     context.stage, ", step ", context.step, ", micro-batch ",
                     context.microbatch,
                     ": its derivative: ", outcome.status().message())));
  }
  if (*outcome != TensorPacker::Outcome::kPacked ||
      packed.stored_bytes() + MetadataBytes(region) >= raw_bytes) {
    return nullptr;
  }
  // Not among the aliases: it does not have the input's elements.
  entry = NewEntry(input, region, TensorClass::kActivation, *described, {});
  entry->report->reason = absl::StrCat("derivative, ", treatment.codec->text(),
                                       ": ", treatment.reason);
  ++bytes_.num_tensors;
  bytes_.raw += raw_bytes;
  SetPacked(std::move(packed), entry.get());
  return entry;
}

at::Tensor StashState::UnpackDerivative(
    const std::shared_ptr<SavedEntry>& entry) {
  Aliases seen;
  MutexLock lock(&mutex_);
  return UnpackFlat(entry, &seen);
}

}  // namespace deltapipe
