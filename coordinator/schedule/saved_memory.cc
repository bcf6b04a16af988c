#include "coordinator/schedule/saved_memory.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "absl/types/span.h"
#include "compression/bit_plan/recompute_plan.h"
#include "coordinator/schedule/saved_budget.h"

namespace deltapipe {
namespace {

// Of what is in host memory, at most: 8 bits and scales for 4 bytes.
constexpr double kEightBits = (8.0 + 32.0 / 256) / 32;

// What keeping track of one tensor takes, at most.
constexpr int64_t kInputMetadata = 1024;

// The class of what a policy moves there (worker/stage/profile.cc).
constexpr char kHostClass[] = "in host memory";

bool IsMetadata(const v1::SavedClass& saved) {
  return saved.name() == "metadata";
}

bool IsOnHost(const v1::SavedClass& saved) {
  return saved.name() == kHostClass;
}

/// What the layer saves when it is computed again, beside what it keeps.
int64_t NotKept(const v1::LayerProfile& layer) {
  int64_t bytes = 0;
  for (const v1::SavedClass& saved : layer.saved()) {
    bytes += std::max<int64_t>(0, saved.raw_bytes() - saved.stored_bytes());
  }
  return bytes;
}

int64_t Kept(const v1::LayerProfile& layer) {
  int64_t bytes = 0;
  for (const v1::SavedClass& saved : layer.saved()) {
    if (!IsOnHost(saved)) bytes += saved.stored_bytes();
  }
  return bytes;
}

/// The classes that policies decide on.
bool IsPacked(const v1::SavedClass& saved) {
  return saved.name() == "activation" || saved.name() == "relu";
}

int64_t PackedKept(const v1::LayerProfile& layer) {
  int64_t bytes = 0;
  for (const v1::SavedClass& saved : layer.saved()) {
    if (IsPacked(saved)) bytes += saved.stored_bytes();
  }
  return bytes;
}

/// What keeping track of its tensors takes.
int64_t MetadataOf(const v1::LayerProfile& layer) {
  for (const v1::SavedClass& saved : layer.saved()) {
    if (IsMetadata(saved)) return saved.stored_bytes();
  }
  return 0;
}

/// What `layer`, the model's last one, was measured to keep for the head behind
/// it: what it keeps more than the one before, which is all inputs are, of as
/// much.
int64_t KeptByHead(const v1::LayerProfile& before,
                   const v1::LayerProfile& layer) {
  return std::max<int64_t>(Kept(layer) - PackedKept(before), 0);
}

/// Layers that follow each other and are computed again together, or are not.
struct Group {
  /// What they save beside what they keep, once they are computed again.
  int64_t not_kept = 0;
  int64_t kept = 0;
};

/// How much more than what is kept of all micro-batches is alive while a group
/// of a stage is computed again: its tensors, less what its micro-batch kept
/// for the head and for later groups, which is gone by then.
int64_t MostOnTop(absl::Span<const Group> groups, int64_t kept_by_head) {
  int64_t most = 0;
  int64_t gone = kept_by_head;
  for (size_t i = groups.size(); i-- > 0;) {
    most = std::max(most, groups[i].not_kept - gone);
    gone += groups[i].kept;
  }
  return most;
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

/// What of it policies decide on takes if all is kept as it is. Operators that
/// keep less have done so where the layer had the whole budget for itself and
/// did not need it.
int64_t PackedExactly(const v1::LayerProfile& layer, int64_t budget) {
  int64_t bytes = 0;
  for (const v1::SavedClass& saved : layer.saved()) {
    if (IsPacked(saved)) bytes += saved.raw_bytes();
  }
  const int64_t kept = PackedKept(layer);
  const bool is_exact = Kept(layer) < budget - budget / 10 && 2 * kept > bytes;
  return is_exact ? kept : bytes;
}

/// Of one micro-batch, as a boundary has it.
int64_t InputBytes(const v1::JobSpec& spec, const v1::StageProfile& profile,
                   int layer) {
  const std::string& precision = spec.train().precision();
  const int64_t element_bytes =
      precision == "bf16" || precision == "fp16" ? 2 : 4;
  // The embedding's result is of the first layer's size.
  return profile.layers(std::max(layer - 1, 0)).output_elements() *
         spec.train().microbatch() * element_bytes;
}

/// Of a layer that policy auto may compute again, but for the head's tensors.
struct AgainLayer {
  int64_t exact = 0;  // of what policies decide on, as it is
  int64_t exempt = 0;
  int64_t metadata = 0;
  int64_t input = 0;
  int64_t not_kept = 0;  // beside the input, while it is computed again
};

/// See SavedMemory::exact. Which layers are worth it is known from their
/// gradients alone: here it is the largest, and the first of those.
std::vector<SavedMemory::Exact> ExactOf(const v1::JobSpec& spec,
                                        const v1::StageProfile& profile,
                                        int first_layer, int end_layer,
                                        const SavedBudget& budget) {
  std::vector<AgainLayer> layers;
  int64_t packed = 0;
  int64_t head = 0;  // never packed
  int64_t kept_by_head = 0;
  for (int i = first_layer; i < end_layer; ++i) {
    const v1::LayerProfile& layer = profile.layers(i);
    const bool is_last = i > 0 && i + 1 == profile.layers_size();
    // The head's tensors are measured with the last layer.
    const v1::LayerProfile& alone = profile.layers(is_last ? i - 1 : i);
    AgainLayer found;
    found.exact = PackedExactly(alone, budget.bytes);
    found.metadata = MetadataOf(alone);
    found.exempt = Kept(alone) - PackedKept(alone) - found.metadata;
    found.input = InputBytes(spec, profile, i);
    for (const v1::SavedClass& saved : alone.saved()) {
      found.not_kept += saved.raw_bytes();
    }
    found.not_kept -= found.input;
    layers.push_back(found);
    const int64_t exact = PackedExactly(layer, budget.bytes);
    packed += exact;
    if (!is_last) continue;
    head = std::max<int64_t>(
        0, Kept(layer) - PackedKept(layer) - found.exempt - found.metadata);
    kept_by_head = head + std::max<int64_t>(0, exact - found.exact);
  }
  std::vector<size_t> order(layers.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto won = [&](size_t i) {
      return layers[i].exact + layers[i].exempt - layers[i].input;
    };
    return won(a) > won(b);
  });
  order.resize(static_cast<size_t>(
      LayersForSlowdown(static_cast<int>(layers.size()), budget.slowdown)));
  std::vector<SavedMemory::Exact> all = {{packed, 0, 0}};
  std::vector<Group> groups;
  for (const AgainLayer& layer : layers) {
    groups.push_back({0, layer.exact + layer.exempt + layer.metadata});
  }
  for (const size_t chosen : order) {
    SavedMemory::Exact exact = all.back();
    exact.packed_bytes +=
        layers[chosen].input - layers[chosen].exact - layers[chosen].exempt;
    exact.metadata +=
        std::max<int64_t>(0, layers[chosen].metadata - kInputMetadata);
    groups[chosen] = {layers[chosen].not_kept, layers[chosen].input};
    exact.on_top = MostOnTop(groups, kept_by_head);
    all.push_back(exact);
  }
  return all;
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
  const int group = RecomputedGroupOf(spec);
  std::vector<Group> groups;
  int64_t kept_by_head = 0;
  for (int i = first_layer; i < end_layer; ++i) {
    v1::LayerProfile layer = profile.layers(i);
    if (group > 0) {
      const int place = (i - first_layer) % group;
      if (place > 0) TakeOffInput(profile.layers(i - place), &layer);
      if (place == 0) groups.push_back({});
      groups.back().not_kept += NotKept(layer);
      groups.back().kept += Kept(layer);
      if (i > 0 && i + 1 == profile.layers_size()) {
        kept_by_head =
            place > 0 ? Kept(layer) : KeptByHead(profile.layers(i - 1), layer);
      }
    }
    for (const v1::SavedClass& saved : layer.saved()) {
      if (IsOnHost(saved)) {
        memory.host_bytes += saved.stored_bytes();
      } else {
        AddClass(saved, &memory.classes);
      }
    }
    if (!layer.saved().empty()) continue;
    v1::SavedClass estimated;
    estimated.set_name("estimated");
    estimated.set_raw_bytes(layer.saved_bytes());
    estimated.set_stored_bytes(layer.saved_bytes());
    AddClass(estimated, &memory.classes);
  }
  // The head's is part of the last group's.
  if (!groups.empty()) groups.back().kept -= kept_by_head;
  memory.recomputed_bytes = MostOnTop(groups, kept_by_head);
  const SavedBudget budget = SavedBudgetOf(spec);
  if (budget.bytes != INT64_MAX) {
    // What a layer alone has there says nothing of the stage (SetInFlight).
    v1::SavedClass moved;
    moved.set_name("activation");
    moved.set_stored_bytes(std::exchange(memory.host_bytes, 0));
    if (moved.stored_bytes() > 0) AddClass(moved, &memory.classes);
    memory.exact = ExactOf(spec, profile, first_layer, end_layer, budget);
  }
  CutDown(budget.bytes, &memory.classes);
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
  const SavedBudget budget = SavedBudgetOf(spec);
  if (budget.bytes == INT64_MAX) return;
  const int64_t microbatches = std::max(in_flight, 1);
  int64_t exempt = 0;
  int64_t raw = 0;
  for (const v1::SavedClass& saved : memory->classes) {
    // The policy counts tensors, and not what keeping track of them takes.
    const bool counts = !IsPacked(saved) && !IsMetadata(saved);
    if (counts) exempt += saved.stored_bytes();
    if (IsPacked(saved)) raw += saved.raw_bytes();
  }
  int64_t room = std::max<int64_t>(0, budget.bytes / microbatches - exempt);
  bool is_exact = false;
  for (const SavedMemory::Exact& exact : memory->exact) {
    const int64_t together =
        microbatches * (exempt + exact.packed_bytes) + exact.on_top;
    if (together > budget.bytes) continue;
    room = std::max<int64_t>(0, exact.packed_bytes);
    memory->recomputed_bytes = exact.on_top;
    for (v1::SavedClass& saved : memory->classes) {
      if (!IsMetadata(saved)) continue;
      saved.set_stored_bytes(
          std::max<int64_t>(0, saved.stored_bytes() - exact.metadata));
    }
    is_exact = true;
    break;
  }
  memory->host_bytes = 0;
  if (!is_exact) {
    // What the device lacks, and no more; with as many layers computed again as
    // may be.
    const SavedMemory::Exact last =
        memory->exact.empty() ? SavedMemory::Exact{raw} : memory->exact.back();
    const int64_t lacks = last.packed_bytes + last.on_top / microbatches - room;
    memory->host_bytes = std::min<int64_t>(
        budget.host_bytes / microbatches,
        std::llround(kEightBits *
                     static_cast<double>(std::max<int64_t>(0, lacks))));
  }
  Fill(room, &memory->classes);
  memory->stored_bytes = 0;
  for (const v1::SavedClass& saved : memory->classes) {
    memory->stored_bytes += saved.stored_bytes();
  }
}

}  // namespace deltapipe
