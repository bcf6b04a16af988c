// The functions that the rows of saved_policies.def call for.
//
// Included by saved_policy.cc, which calls them, and by policies/*.cc, which
// define them.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_SAVED_POLICY_MAKERS_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_SAVED_POLICY_MAKERS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/bit_plan/saved_policy.h"
#include "compression/codec_spec.h"

namespace deltapipe {

#define DELTAPIPE_SAVED_POLICY(Identifier, name, summary, source)        \
  absl::Span<const CodecParameter> Identifier##PolicyParameters();       \
  absl::StatusOr<std::unique_ptr<SavedPolicy>> Make##Identifier##Policy( \
      const CodecArguments& arguments);
#include "compression/bit_plan/saved_policies.def"
#undef DELTAPIPE_SAVED_POLICY

/// For policies that take another one. Errors are those of the grammar, about
/// the whole text that the term is from.
absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeSavedPolicyFromSpec(
    const CodecSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_SAVED_POLICY_MAKERS_H_
