#include "coordinator/schedule/saved_memory.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/numbers.h"
#include "compression/codec_spec.h"

namespace deltapipe {
namespace {

constexpr double kBytesPerMiB = 1 << 20;

/// Of a stage and micro-batch; INT64_MAX: the policy has none.
int64_t BudgetOf(const std::string& policy) {
  const absl::StatusOr<CodecSpec> term = ParseCodecSpec(policy);
  if (!term.ok() || term->name != "auto" || term->arguments.size() != 1) {
    return INT64_MAX;
  }
  double budget = 0;
  if (!absl::SimpleAtod(term->arguments[0].value.name, &budget) || budget < 0) {
    return INT64_MAX;
  }
  return static_cast<int64_t>(std::min(budget * kBytesPerMiB, 1e18));
}

/// The classes that policies decide on.
bool IsPacked(const v1::SavedClass& saved) {
  return saved.name() == "activation" || saved.name() == "relu";
}

void AddClass(const v1::SavedClass& added,
              std::vector<v1::SavedClass>* classes) {
  for (v1::SavedClass& known : *classes) {
    if (known.name() != added.name()) continue;
    known.set_raw_bytes(known.raw_bytes() + added.raw_bytes());
    known.set_stored_bytes(known.stored_bytes() + added.stored_bytes());
    return;
  }
  classes->push_back(added);
}

/// Lowers what is packed, each class by the same factor, to `budget` in all.
void CutDown(int64_t budget, std::vector<v1::SavedClass>* classes) {
  int64_t packed = 0;
  for (const v1::SavedClass& saved : *classes) {
    if (IsPacked(saved)) packed += saved.stored_bytes();
  }
  if (packed <= budget) return;
  const double share =
      static_cast<double>(budget) / static_cast<double>(packed);
  for (v1::SavedClass& saved : *classes) {
    if (!IsPacked(saved)) continue;
    saved.set_stored_bytes(
        std::llround(share * static_cast<double>(saved.stored_bytes())));
  }
}

}  // namespace

bool PacksSavedActivations(const v1::JobSpec& spec) {
  const std::string& policy = spec.compression().saved_activations();
  return !policy.empty() && policy != "none";
}

SavedMemory SavedMemoryOf(const v1::JobSpec& spec,
                          const v1::StageProfile& profile, int first_layer,
                          int end_layer) {
  SavedMemory memory;
  for (int i = first_layer; i < end_layer; ++i) {
    const v1::LayerProfile& layer = profile.layers(i);
    for (const v1::SavedClass& saved : layer.saved()) {
      AddClass(saved, &memory.classes);
    }
    if (!layer.saved().empty()) continue;
    v1::SavedClass estimated;
    estimated.set_name("estimated");
    estimated.set_raw_bytes(layer.saved_bytes());
    estimated.set_stored_bytes(layer.saved_bytes());
    AddClass(estimated, &memory.classes);
  }
  CutDown(BudgetOf(spec.compression().saved_activations()), &memory.classes);
  std::stable_sort(memory.classes.begin(), memory.classes.end(),
                   [](const v1::SavedClass& a, const v1::SavedClass& b) {
                     return a.raw_bytes() > b.raw_bytes();
                   });
  for (const v1::SavedClass& saved : memory.classes) {
    memory.raw_bytes += saved.raw_bytes();
    memory.stored_bytes += saved.stored_bytes();
  }
  return memory;
}

}  // namespace deltapipe
