#include "worker/saved_activations/device_policy.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/codec_spec.h"
#include "compression/cuda/kernel_plan.h"

namespace deltapipe {
namespace {

// Policies whose plans may come to codecs that have no kernels on a GPU.
constexpr struct {
  absl::string_view policy;
  absl::string_view codec;
} kHostPolicies[] = {{"actnn", "mixed"},
                     {"comet", "error_bound"},
                     {"division", "dual_precision"},
                     {"mesa", "per_head"}};

/// Of the policy that `spec` names, or of one within it; empty if there is
/// none.
absl::string_view HostCodecOf(const CodecSpec& spec) {
  for (const auto& host : kHostPolicies) {
    if (spec.name == host.policy) return host.codec;
  }
  for (const CodecArgument& argument : spec.arguments) {
    const absl::string_view codec = HostCodecOf(argument.value);
    if (!codec.empty()) return codec;
  }
  return "";
}

}  // namespace

absl::Status CheckDeviceCodec(const Codec& codec) {
  const Codec::Traits traits = codec.traits();
  const char* problem = nullptr;
  if (cuda::PlanKernels(codec.text()).status().code() ==
      absl::StatusCode::kUnimplemented) {
    problem = "has no CUDA kernel";
  } else if (traits.has_memory) {
    problem = "remembers, which its CUDA kernel does not";
  } else if (!traits.has_fixed_size) {
    problem = "has payloads whose size the host would have to wait for";
  }
  if (problem == nullptr) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      "codec ", codec.text(), " ", problem,
      ": saved activations on a GPU are packed by ", GroupCodecText(4),
      " (1 to 8 bits), int(4), cast, fp, luq "
      "and others with kernels of a fixed size"));
}

absl::Status CheckDevicePolicy(const SavedPolicy& policy,
                               const SavedTensor& example,
                               absl::string_view device) {
  const std::string text = policy.text();
  DP_ASSIGN_OR_RETURN(const CodecSpec spec, ParseCodecSpec(text));
  const absl::string_view codec = HostCodecOf(spec);
  if (!codec.empty()) {
    return absl::UnimplementedError(absl::StrCat(
        "compression.saved_activations: ", text, " packs by codec ", codec,
        ", which has no CUDA kernel: use fixed(codec), gact, auto, recompute "
        "or offload on device ",
        device));
  }
  const SavedTreatment treatment = policy.Treat(example);
  if (treatment.codec == nullptr) return absl::OkStatus();
  const absl::Status status = CheckDeviceCodec(*treatment.codec);
  if (status.ok()) return status;
  return absl::Status(
      status.code(), absl::StrCat("compression.saved_activations: ", text, ": ",
                                  status.message()));
}

absl::Status CheckHostPolicy(const SavedPolicy& policy) {
  if (!policy.MovesToHost()) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      "compression.saved_activations: ", policy.text(),
      " moves packed tensors to host memory, where those of a cpu worker are "
      "already: use fixed(codec), or auto without offload, there"));
}

}  // namespace deltapipe
