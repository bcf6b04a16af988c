// PlannedPolicy: what policies for saved activations have in common. Keeps what
// was planned and raised, makes codecs once for each tensor and shape, and
// writes and reads the state.
//
// Policies derive from it and say what a tensor gets (Choose) and at which
// level it then is (Level). Treat costs a look-up, but for the first time after
// a change of the plan.
//
// One thread at a time, as SavedPolicy.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_PLANNED_POLICY_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_PLANNED_POLICY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/policy_state.h"
#include "compression/bit_plan/saved_policy.h"

namespace deltapipe {

class PlannedPolicy : public SavedPolicy {
 public:
  std::string text() const final { return text_; }
  SavedTreatment Treat(const SavedTensor& tensor) const final;
  SavedMeasures measures() const override { return {}; }
  absl::Status Plan(int64_t step,
                    absl::Span<const SavedMeasurement> measurements) override;
  std::string Raise(absl::string_view op) final;
  int recompute_every() const override { return 0; }
  std::string Save() const final;
  absl::Status Restore(absl::string_view state) final;

 protected:
  explicit PlannedPolicy(std::string text) : text_(std::move(text)) {}

  struct Choice {
    /// Parameters that are extents are filled in. Empty: as it is.
    std::string codec;
    std::string reason;
    bool is_offloaded = false;
    /// As SavedTreatment; `codec` then is that of the derivative.
    bool takes_substitute = false;
  };
  /// What `tensor` gets. `planned` is null where no plan knows it.
  virtual Choice Choose(const SavedTensor& tensor, const PlannedTensor* planned,
                        int times_raised) const = 0;
  /// In words; BitsText(kExactBits) exactly where tensors are kept as they are.
  virtual std::string Level(const PlannedTensor* planned,
                            int times_raised) const = 0;

  /// Bits of a tensor that is packed; 0 where levels are no bits.
  virtual int BitsAt(const PlannedTensor& /*planned*/,
                     int /*times_raised*/) const {
    return 0;
  }

  const PolicyState& state() const { return state_; }
  int TimesRaised(const std::string& op) const;
  void SetPlan(std::map<std::string, PlannedTensor> planned);
  /// Plans may go below what a raise reached; raises still count.
  void ForgetLeastBits() { state_.least_bits.clear(); }

 private:
  // A tensor, but for its name and layer, and what it gets.
  struct Treated {
    bool IsFor(const SavedTensor& tensor) const;

    std::string op;
    std::vector<int64_t> shape;
    int64_t num_elements;
    int element_bytes;
    bool keeps_zeros;
    SavedSubstitute substitute;
    SavedTreatment treatment;
  };

  SavedTreatment Make(const SavedTensor& tensor) const;
  std::shared_ptr<const Codec> FindCodec(const std::string& text,
                                         const SavedTensor& tensor,
                                         std::string* error) const;
  void ForgetTreatments();

  const std::string text_;
  PolicyState state_;
  // By the tensor's name; shapes differ where batches do.
  mutable absl::flat_hash_map<std::string, std::vector<Treated>> treated_;
  // By the bound text. Shared with what is packed at the moment.
  mutable absl::flat_hash_map<std::string, std::shared_ptr<const Codec>>
      codecs_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_PLANNED_POLICY_H_
