// Bits for tensors, some of which wait in host memory: the least variance
// within a budget of the device's bytes and another one of the host's.
//
// Bits are planned for both together; of the tensors that then are packed,
// those that are saved first go to the host, as they are needed last and their
// copies have the most time. Where the two budgets cannot be met so, because
// what is left is too large or kept as it is, a smaller sum is planned for.
// Then each side's bits are planned anew for its own budget. Pure functions,
// for policies.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_OFFLOAD_PLAN_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_OFFLOAD_PLAN_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "compression/bit_plan/policy_state.h"
#include "compression/bit_plan/tensor_bits.h"

namespace deltapipe {

/// By tensor, as PlanBudgetBits, with PlannedTensor::is_offloaded. Measurements
/// are in the order of saves. Tensors on the device take at most `device_bytes`
/// and those on the host at most `host_bytes`; derivatives and what is kept as
/// it is stay on the device. RESOURCE_EXHAUSTED if even the lowest levels do
/// not fit, which is where device_bytes are below LeastDeviceBytes.
absl::StatusOr<std::map<std::string, PlannedTensor>> PlanWithOffload(
    const TensorBitsQuestion& question, int64_t device_bytes,
    int64_t host_bytes);

/// The smallest budget of the device that PlanWithOffload has an answer for.
int64_t LeastDeviceBytes(const TensorBitsQuestion& question,
                         int64_t host_bytes);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_OFFLOAD_PLAN_H_
