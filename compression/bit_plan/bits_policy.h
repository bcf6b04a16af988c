// BitsPolicy: a policy whose decision about a tensor is a number of bits.
//
// Policies derive from it and plan bits, or leave the default, or make another
// codec of them.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_BITS_POLICY_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_BITS_POLICY_H_

#include <string>
#include <utility>

#include "compression/bit_plan/planned_policy.h"

namespace deltapipe {

class BitsPolicy : public PlannedPolicy {
 protected:
  /// `default_reason` is said of tensors that no plan knows.
  BitsPolicy(std::string text, int default_bits, std::string default_reason)
      : PlannedPolicy(std::move(text)),
        default_bits_(default_bits),
        default_reason_(std::move(default_reason)) {}

  /// Whether operators shall keep what they can do with: results where that is
  /// possible, derivatives where they are planned.
  virtual bool TakesSubstitutes() const { return false; }

  /// The codec of `tensor` in 1 to 8 bits. GroupCodecText where not overridden.
  virtual std::string CodecFor(const SavedTensor& tensor, int bits) const;

 private:
  Choice Choose(const SavedTensor& tensor, const PlannedTensor* planned,
                int times_raised) const final;
  std::string Level(const PlannedTensor* planned, int times_raised) const final;
  int BitsAt(const PlannedTensor& planned, int times_raised) const final;
  /// Of a tensor of the operator `op`; `planned` is null where no plan knows
  /// it.
  int BitsOf(const std::string& op, const PlannedTensor* planned,
             int times_raised) const;

  const int default_bits_;
  const std::string default_reason_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_BITS_POLICY_H_
