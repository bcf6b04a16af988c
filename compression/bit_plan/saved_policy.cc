#include "compression/bit_plan/saved_policy.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "compression/bit_plan/saved_policy_makers.h"

namespace deltapipe {
namespace {

absl::StatusOr<const SavedPolicyInfo*> FindPolicy(const CodecSpec& spec) {
  std::vector<absl::string_view> names;
  for (const SavedPolicyInfo& info : AllSavedPolicies()) {
    if (info.name == spec.name) return &info;
    names.push_back(info.name);
  }
  return CodecSpecError(
      spec, absl::StrCat("unknown policy '", spec.name, "': expected one of ",
                         absl::StrJoin(names, ", "),
                         NearestNameHint(spec.name, names)));
}

absl::StatusOr<std::unique_ptr<SavedPolicy>> Make(absl::string_view text) {
  DP_ASSIGN_OR_RETURN(const CodecSpec spec, ParseCodecSpec(text));
  return MakeSavedPolicyFromSpec(spec);
}

// The grammar's errors call any text a codec's.
absl::Status AsErrorOfPolicy(const absl::Status& status,
                             absl::string_view text) {
  const std::string quoted = absl::StrCat("\"", absl::CHexEscape(text), "\": ");
  absl::string_view message = status.message();
  if (!absl::ConsumePrefix(&message, absl::StrCat("codec ", quoted))) {
    return Annotate(status, absl::StrCat("policy for saved activations ",
                                         quoted.substr(0, quoted.size() - 2)));
  }
  std::string rest(message);
  constexpr absl::string_view kNameOfCodec = "the name of a codec";
  const size_t at = rest.find(std::string(kNameOfCodec));
  if (at != std::string::npos) {
    rest.replace(at, kNameOfCodec.size(), "the name of a policy");
  }
  return absl::Status(
      status.code(),
      absl::StrCat("policy for saved activations ", quoted, rest));
}

}  // namespace

const std::vector<SavedPolicyInfo>& AllSavedPolicies() {
  static const std::vector<SavedPolicyInfo>* const policies =
      new std::vector<SavedPolicyInfo>{
#define DELTAPIPE_SAVED_POLICY(Identifier, name, summary, source) \
  {name, summary, source, Identifier##PolicyParameters(),         \
   Make##Identifier##Policy},
#include "compression/bit_plan/saved_policies.def"
#undef DELTAPIPE_SAVED_POLICY
      };
  return *policies;
}

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeSavedPolicyFromSpec(
    const CodecSpec& spec) {
  DP_ASSIGN_OR_RETURN(const SavedPolicyInfo* info, FindPolicy(spec));
  DP_ASSIGN_OR_RETURN(const CodecArguments arguments,
                      CodecArguments::Read(spec, info->parameters));
  return info->make(arguments);
}

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeSavedPolicy(
    absl::string_view text) {
  absl::StatusOr<std::unique_ptr<SavedPolicy>> policy = Make(text);
  if (!policy.ok()) return AsErrorOfPolicy(policy.status(), text);
  return policy;
}

}  // namespace deltapipe
