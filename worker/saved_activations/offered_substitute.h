// OfferedSubstitute: an operator that could have done with something else saves
// a tensor all the same.
//
// Policies plan by what is saved while all is kept as it is: the description of
// the tensor then says what the operator offers.
//
//   OfferedSubstitute offer(input.const_data_ptr(),
//                           SavedSubstitute::kDerivative);
//   return at::gelu(input);
//
// Scopes nest; they are of the thread that opens them. Free of Torch.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_OFFERED_SUBSTITUTE_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_OFFERED_SUBSTITUTE_H_

#include "compression/bit_plan/saved_policy.h"

namespace deltapipe {

class OfferedSubstitute {
 public:
  /// Of the tensor whose first element is at `tensor`.
  OfferedSubstitute(const void* tensor, SavedSubstitute substitute);
  ~OfferedSubstitute();
  OfferedSubstitute(const OfferedSubstitute&) = delete;
  OfferedSubstitute& operator=(const OfferedSubstitute&) = delete;

  /// For a tensor that is saved now.
  static SavedSubstitute For(const void* tensor);

 private:
  const void* const tensor_;
  const SavedSubstitute substitute_;
  const OfferedSubstitute* const outer_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_OFFERED_SUBSTITUTE_H_
