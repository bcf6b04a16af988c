#include "coordinator/schedule/saved_memory.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "compression/codec_spec.h"

namespace deltapipe {
namespace {

constexpr double kBytesPerMiB = 1 << 20;

/// The policy that decides how much is kept: in lean(policy) the inner one.
const CodecSpec& InnerPolicy(const CodecSpec& policy) {
  if (policy.name != "lean") return policy;
  for (const CodecArgument& argument : policy.arguments) {
    const bool is_first = argument.column == policy.arguments[0].column;
    if (argument.name == "policy" || (argument.name.empty() && is_first)) {
      return argument.value;
    }
  }
  return policy;
}

/// The spec's policy, or the inner one, if it has that name.
std::optional<CodecSpec> PolicyNamed(const v1::JobSpec& spec,
                                     absl::string_view name) {
  const absl::StatusOr<CodecSpec> parsed =
      ParseCodecSpec(spec.compression().saved_activations());
  if (!parsed.ok() || InnerPolicy(*parsed).name != name) return std::nullopt;
  return InnerPolicy(*parsed);
}

/// The parameter `name` of the policy, which is its first one; `otherwise` if
/// it has no such number.
double FirstNumber(const CodecSpec& policy, absl::string_view name,
                   double otherwise) {
  for (const CodecArgument& argument : policy.arguments) {
    const bool is_it = argument.name == name ||
                       (argument.name.empty() &&
                        argument.column == policy.arguments[0].column);
    double number = 0;
    if (is_it && absl::SimpleAtod(argument.value.name, &number)) return number;
  }
  return otherwise;
}

/// Of a stage and micro-batch; INT64_MAX: the policy has none.
int64_t BudgetOf(const v1::JobSpec& spec) {
  constexpr double kMost = 1e12;  // in MiB
  const std::optional<CodecSpec> policy = PolicyNamed(spec, "auto");
  if (!policy.has_value()) return INT64_MAX;
  const double budget = FirstNumber(*policy, "budget", kMost);
  return budget >= 0 && budget < kMost
             ? static_cast<int64_t>(budget * kBytesPerMiB)
             : INT64_MAX;
}

/// Layers whose forward is done again together; 0: none is.
int GroupOf(const v1::JobSpec& spec) {
  const std::optional<CodecSpec> policy = PolicyNamed(spec, "recompute");
  if (!policy.has_value()) return 0;
  return static_cast<int>(
      std::clamp(FirstNumber(*policy, "every", 1), 1.0, 1e6));
}

/// What the layer saves when it is computed again, beside what it keeps.
int64_t NotKept(const v1::LayerProfile& layer) {
  int64_t bytes = 0;
  for (const v1::SavedClass& saved : layer.saved()) {
    bytes += std::max<int64_t>(0, saved.raw_bytes() - saved.stored_bytes());
  }
  return bytes;
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

/// Takes off `layer` what it would keep of its input, had it to be computed
/// again alone: as much as `first`, the first one of its group, keeps.
void TakeOffInput(const v1::LayerProfile& first, v1::LayerProfile* layer) {
  for (v1::SavedClass& saved : *layer->mutable_saved()) {
    if (!IsPacked(saved)) continue;
    for (const v1::SavedClass& input : first.saved()) {
      if (input.name() != saved.name()) continue;
      saved.set_stored_bytes(
          std::max<int64_t>(0, saved.stored_bytes() - input.stored_bytes()));
    }
  }
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

/// Gives what is packed `room` bytes, each class as much more or less as it
/// took, and none more than as it is.
void Fill(int64_t room, std::vector<v1::SavedClass>* classes) {
  int64_t packed = 0;
  for (const v1::SavedClass& saved : *classes) {
    if (IsPacked(saved)) packed += saved.stored_bytes();
  }
  // Those that need the least growth first: what they leave is for the others.
  std::vector<v1::SavedClass*> open;
  for (v1::SavedClass& saved : *classes) {
    if (IsPacked(saved) && saved.stored_bytes() > 0) open.push_back(&saved);
  }
  const auto growth = [](const v1::SavedClass* saved) {
    return static_cast<double>(saved->raw_bytes()) /
           static_cast<double>(saved->stored_bytes());
  };
  std::sort(open.begin(), open.end(),
            [&](const v1::SavedClass* a, const v1::SavedClass* b) {
              return growth(a) < growth(b);
            });
  for (v1::SavedClass* const saved : open) {
    const int64_t before = saved->stored_bytes();
    const double share = static_cast<double>(room) *
                         static_cast<double>(before) /
                         static_cast<double>(packed);
    saved->set_stored_bytes(
        std::min<int64_t>(saved->raw_bytes(), std::llround(share)));
    room -= saved->stored_bytes();
    packed -= before;
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
  const int group = GroupOf(spec);
  int64_t group_bytes = 0;
  for (int i = first_layer; i < end_layer; ++i) {
    v1::LayerProfile layer = profile.layers(i);
    if (group > 0) {
      const int place = (i - first_layer) % group;
      if (place > 0) TakeOffInput(profile.layers(i - place), &layer);
      group_bytes = NotKept(layer) + (place > 0 ? group_bytes : 0);
      memory.recomputed_bytes = std::max(memory.recomputed_bytes, group_bytes);
    }
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
  CutDown(BudgetOf(spec), &memory.classes);
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

void SetInFlight(const v1::JobSpec& spec, int in_flight, SavedMemory* memory) {
  memory->in_flight = in_flight;
  const int64_t budget = BudgetOf(spec);
  if (budget == INT64_MAX) return;
  int64_t exempt = 0;
  for (const v1::SavedClass& saved : memory->classes) {
    // The policy counts tensors, and not what keeping track of them takes.
    const bool counts = !IsPacked(saved) && saved.name() != "metadata";
    if (counts) exempt += saved.stored_bytes();
  }
  Fill(std::max<int64_t>(0, budget / std::max(in_flight, 1) - exempt),
       &memory->classes);
  memory->stored_bytes = 0;
  for (const v1::SavedClass& saved : memory->classes) {
    memory->stored_bytes += saved.stored_bytes();
  }
}

}  // namespace deltapipe
