// What a policy for saved activations has decided, and its text for
// checkpoints.
//
//   deltapipe saved policy 1
//   policy=actnn(bits=2)
//   raised=gelu<tab>1
//   least=gelu<tab>8
//   planned=blocks.3/gelu/0<tab>gelu<tab>4
//   unmeasured=blocks.4/gelu/0<tab>gelu<tab>8
//   offloaded=blocks.3/gelu/0
//
// One line each, in the order of names; tabs and line ends in names are escaped
// as in C. Plain data and pure functions.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_POLICY_STATE_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_POLICY_STATE_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

/// What the last plan says of one tensor.
struct PlannedTensor {
  std::string op;
  /// Bits, 32 for as it is, negative for those of the derivative in the
  /// tensor's place; or what the policy plans instead.
  double value = 0;
  /// False: what was measured was no finite number.
  bool is_measured = true;
  /// What is packed of it waits in host memory.
  bool is_offloaded = false;
};

struct PolicyState {
  /// By the tensor's name.
  std::map<std::string, PlannedTensor> planned;
  /// By operator, how often it was raised.
  std::map<std::string, int> raised;
  /// By operator, the bits that the last raise made of its lowest tensor:
  /// later plans do not go below them. Of policies that plan bits.
  std::map<std::string, int> least_bits;
};

/// `policy` is the text that makes the policy.
std::string PolicyStateText(absl::string_view policy, const PolicyState& state);

/// The text of the policy that a state is of, within `state`; empty if it names
/// none.
absl::string_view PolicyOfState(absl::string_view state);

/// INVALID_ARGUMENT, with the line, if `text` is of another policy or version
/// or was not written by PolicyStateText.
absl::StatusOr<PolicyState> ParsePolicyState(absl::string_view policy,
                                             absl::string_view text);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_POLICY_STATE_H_
