// lean(policy,derivative=2): operators that can do with less than the tensor
// they save do so, all else is as `policy` says.
//
// Layer norm keeps its result, which the next matrix product keeps anyway; gelu
// keeps its derivative in `derivative` bits, so that its backward pass is one
// product, whose mean over draws is the exact one. lean(none) is exact but for
// that derivative.
//
// Andoorveedu, Zhu, Zheng, Pekhimenko, "Tempo: Accelerating Transformer-Based
// Model Training through Memory Footprint Reduction", NeurIPS 2022, section 3.
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/policy_state.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/codec_registry.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

constexpr int kDefaultBits = 2;
// Between this policy's state and that of the other one.
constexpr absl::string_view kInner = "\ninner\n";

class LeanPolicy final : public SavedPolicy {
 public:
  LeanPolicy(std::unique_ptr<SavedPolicy> inner, int bits)
      : inner_(std::move(inner)), bits_(bits) {}

  std::string text() const override {
    return absl::StrCat(
        "lean(", inner_->text(),
        bits_ == kDefaultBits ? "" : absl::StrCat(",derivative=", bits_), ")");
  }

  SavedTreatment Treat(const SavedTensor& tensor) const override {
    SavedTreatment treatment;
    if (tensor.substitute == SavedSubstitute::kOutput) {
      treatment.reason = "its operator keeps the result in its place";
      treatment.takes_substitute = true;
      return treatment;
    }
    if (tensor.substitute == SavedSubstitute::kDerivative) {
      derivative_ops_.insert(tensor.op);
      const int bits = BitsOf(tensor.op);
      if (bits < kExactBits && GroupCodecBytes(tensor.num_elements, bits) <
                                   tensor.num_elements * tensor.element_bytes) {
        treatment.codec = CodecOf(bits);
        treatment.reason = absl::StrCat(BitsText(bits), " of the derivative");
        treatment.takes_substitute = true;
        return treatment;
      }
    }
    return inner_->Treat(tensor);
  }

  SavedMeasures measures() const override { return inner_->measures(); }

  /// The other policy shares out what is left for the tensors that are saved.
  absl::Status Plan(int64_t step,
                    absl::Span<const SavedMeasurement> measurements) override {
    std::vector<SavedMeasurement> saved;
    SavedRoom room = room_;
    for (const SavedMeasurement& measurement : measurements) {
      const SavedTreatment treatment = Treat(measurement.tensor);
      if (!treatment.takes_substitute) {
        saved.push_back(measurement);
      } else if (treatment.codec != nullptr) {
        const int64_t bytes =
            treatment.codec->MaxPayloadBytes(measurement.tensor.num_elements);
        room.exempt_bytes += bytes;
        for (SavedRoom::Layer& layer : room.layers) {
          if (layer.name == measurement.tensor.layer) {
            layer.exempt_bytes += bytes;
          }
        }
      }
    }
    inner_->SetRoom(room);
    return inner_->Plan(step, saved);
  }
  void SetRoom(const SavedRoom& room) override { room_ = room; }

  std::string Raise(absl::string_view op) override {
    const std::string said = inner_->Raise(op);
    const std::string name(op);
    const int bits = BitsOf(name);
    if (derivative_ops_.count(name) == 0 || bits == kExactBits) return said;
    ++raised_[name];
    const int raised_bits = BitsOf(name);
    return absl::StrCat(said.empty() ? absl::StrCat(name, ": ") : said + ", ",
                        "from derivatives of ", BitsText(bits), " to ",
                        raised_bits == kExactBits
                            ? "the inputs"
                            : absl::StrCat("those of ", BitsText(raised_bits)));
  }

  int recompute_every() const override { return inner_->recompute_every(); }
  std::vector<std::string> RecomputedLayers() const override {
    return inner_->RecomputedLayers();
  }
  bool MovesToHost() const override { return inner_->MovesToHost(); }

  std::string Save() const override {
    PolicyState own;
    own.raised = raised_;
    std::string state = PolicyStateText(text(), own);
    state.pop_back();  // kInner begins with the line's end
    return absl::StrCat(state, kInner, inner_->Save());
  }

  absl::Status Restore(absl::string_view state) override {
    const size_t end = state.find(kInner);
    DP_ASSIGN_OR_RETURN(PolicyState own,
                        ParsePolicyState(text(), state.substr(0, end)));
    if (end == absl::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          "state of the policy for saved activations ", text(),
          ": expected a line 'inner' and the state of ", inner_->text()));
    }
    DP_RETURN_IF_ERROR(inner_->Restore(state.substr(end + kInner.size())));
    raised_ = std::move(own.raised);
    for (const auto& [op, times] : raised_) derivative_ops_.insert(op);
    return absl::OkStatus();
  }

 private:
  int BitsOf(const std::string& op) const {
    const auto found = raised_.find(op);
    return RaisedBits(bits_, found == raised_.end() ? 0 : found->second);
  }

  const std::shared_ptr<const Codec>& CodecOf(int bits) const {
    std::shared_ptr<const Codec>& codec = codecs_[bits];
    if (codec == nullptr) codec = MakeCodec(GroupCodecText(bits)).value();
    return codec;
  }

  const std::unique_ptr<SavedPolicy> inner_;
  const int bits_;
  SavedRoom room_;
  std::map<std::string, int> raised_;
  // Whose results meet an operator that could keep its derivative.
  mutable std::set<std::string> derivative_ops_;
  // By bits. Shared with what is packed at the moment.
  mutable std::map<int, std::shared_ptr<const Codec>> codecs_;
};

constexpr CodecParameter kParameters[] = {
    InnerCodecParameter("policy", "", "another policy, for all other tensors"),
    IntegerParameter("derivative", "2", 1, 8, "bits of gelu's derivative"),
};

}  // namespace

absl::Span<const CodecParameter> LeanPolicyParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeLeanPolicy(
    const CodecArguments& arguments) {
  const CodecSpec& spec = arguments.Codec("policy");
  if (spec.name == "lean") {
    return CodecSpecError(spec,
                          "policy: expected any policy but lean, got lean");
  }
  DP_ASSIGN_OR_RETURN(std::unique_ptr<SavedPolicy> inner,
                      MakeSavedPolicyFromSpec(spec));
  return std::unique_ptr<SavedPolicy>(new LeanPolicy(
      std::move(inner), static_cast<int>(arguments.Integer("derivative"))));
}

}  // namespace deltapipe
