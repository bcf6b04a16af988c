#include "compression/bit_plan/planned_policy.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "compression/codec_registry.h"

namespace deltapipe {
namespace {

// Shapes of one tensor whose codecs are remembered: batches of few sizes.
constexpr size_t kMaxShapes = 16;

}  // namespace

bool PlannedPolicy::Treated::IsFor(const SavedTensor& tensor) const {
  return num_elements == tensor.num_elements &&
         element_bytes == tensor.element_bytes &&
         keeps_zeros == tensor.keeps_zeros && substitute == tensor.substitute &&
         op == tensor.op && shape == tensor.shape;
}

SavedTreatment PlannedPolicy::Treat(const SavedTensor& tensor) const {
  std::vector<Treated>& known = treated_[tensor.name];
  for (const Treated& treated : known) {
    if (treated.IsFor(tensor)) return treated.treatment;
  }
  if (known.size() == kMaxShapes) known.clear();
  known.push_back({tensor.op, tensor.shape, tensor.num_elements,
                   tensor.element_bytes, tensor.keeps_zeros, tensor.substitute,
                   Make(tensor)});
  return known.back().treatment;
}

SavedTreatment PlannedPolicy::Make(const SavedTensor& tensor) const {
  const auto planned = state_.planned.find(tensor.name);
  Choice choice = Choose(
      tensor, planned == state_.planned.end() ? nullptr : &planned->second,
      TimesRaised(tensor.op));
  SavedTreatment treatment;
  treatment.is_offloaded = choice.is_offloaded;
  treatment.reason = std::move(choice.reason);
  treatment.takes_substitute = choice.takes_substitute;
  if (choice.codec.empty()) return treatment;
  std::string error;
  auto codec = FindCodec(choice.codec, tensor, &error);
  if (codec == nullptr) {
    treatment.reason = absl::StrCat("as it is: ", error);
    return treatment;
  }
  const int64_t raw = tensor.num_elements * tensor.element_bytes;
  // Of a size that varies, whoever packs finds out.
  const int64_t packed = codec->traits().has_fixed_size
                             ? codec->MaxPayloadBytes(tensor.num_elements)
                             : 0;
  if (packed > raw) {
    treatment.reason = absl::StrCat("as it is: ", codec->text(), " takes ",
                                    packed, " bytes for its ", raw);
    return treatment;
  }
  treatment.codec = std::move(codec);
  return treatment;
}

std::shared_ptr<const Codec> PlannedPolicy::FindCodec(
    const std::string& text, const SavedTensor& tensor,
    std::string* error) const {
  // A shape that is none leaves the extents out.
  const auto bound = BindTensorShape(text, tensor.shape);
  for (const std::string& candidate : {bound.ok() ? *bound : text, text}) {
    const auto known = codecs_.find(candidate);
    if (known != codecs_.end()) return known->second;
    auto made = MakeCodec(candidate);
    if (made.ok()) {
      return codecs_
          .emplace(candidate, std::shared_ptr<const Codec>(*std::move(made)))
          .first->second;
    }
    *error = std::string(made.status().message());
  }
  return nullptr;
}

absl::Status PlannedPolicy::Plan(
    int64_t /*step*/, absl::Span<const SavedMeasurement> /*measurements*/) {
  return absl::OkStatus();
}

std::string PlannedPolicy::Raise(absl::string_view op) {
  const std::string name(op);
  const int times = TimesRaised(name);
  std::set<std::string> before, after;
  std::vector<const PlannedTensor*> packed;
  const auto add = [&](const PlannedTensor* planned) {
    std::string level = Level(planned, times);
    if (level == BitsText(kExactBits)) return;
    packed.push_back(planned);
    before.insert(std::move(level));
  };
  int least_bits = kExactBits;
  for (const auto& entry : state_.planned) {
    if (entry.second.op != op) continue;
    add(&entry.second);
    least_bits =
        std::min(least_bits, RaisedBits(BitsAt(entry.second, times), 1));
  }
  const int num_planned = static_cast<int>(packed.size());
  // Those that no plan knows.
  if (num_planned == 0) add(nullptr);
  if (packed.empty()) return "";
  state_.raised[name] = times + 1;
  if (num_planned > 0 && BitsAt(*packed[0], times) > 0) {
    state_.least_bits[name] = least_bits;
  }
  for (const PlannedTensor* planned : packed) {
    after.insert(Level(planned, times + 1));
  }
  ForgetTreatments();
  return absl::StrCat(name, ": from ", absl::StrJoin(before, ", "), " to ",
                      absl::StrJoin(after, ", "),
                      num_planned == 0
                          ? ""
                          : absl::StrCat(" (", num_planned, " planned tensor",
                                         num_planned == 1 ? "" : "s", ")"));
}

std::string PlannedPolicy::Save() const {
  return PolicyStateText(text_, state_);
}

absl::Status PlannedPolicy::Restore(absl::string_view state) {
  DP_ASSIGN_OR_RETURN(state_, ParsePolicyState(text_, state));
  ForgetTreatments();
  return absl::OkStatus();
}

int PlannedPolicy::TimesRaised(const std::string& op) const {
  const auto found = state_.raised.find(op);
  return found == state_.raised.end() ? 0 : found->second;
}

void PlannedPolicy::SetPlan(std::map<std::string, PlannedTensor> planned) {
  state_.planned = std::move(planned);
  ForgetTreatments();
}

void PlannedPolicy::ForgetTreatments() {
  treated_.clear();
  codecs_.clear();
}

}  // namespace deltapipe
