// Which codecs and policies work for tensors on a device, and which only there.
//
// Pure functions. Free of Torch.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_POLICY_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_POLICY_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "compression/bit_plan/saved_policy.h"
#include "compression/codec.h"

namespace deltapipe {

/// Whether tensors on a device can be packed by `codec`: it has kernels, no
/// memory, and payloads whose sizes are known without waiting for the device.
/// UNIMPLEMENTED, naming the codec and what works.
absl::Status CheckDeviceCodec(const Codec& codec);

/// Whether all codecs that the policy may come to are such; `example` is a
/// tensor that it is asked about. UNIMPLEMENTED, naming policy and codec.
absl::Status CheckDevicePolicy(const SavedPolicy& policy,
                               const SavedTensor& example,
                               absl::string_view device);

/// Whether the policy does without another memory than that of the tensors,
/// which a worker on the host does not have. UNIMPLEMENTED, naming the policy
/// and what works.
absl::Status CheckHostPolicy(const SavedPolicy& policy);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_POLICY_H_
