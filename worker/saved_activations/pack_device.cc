#include "worker/saved_activations/pack_device.h"

#include <utility>

#include "base/status_macros.h"

namespace deltapipe {

absl::StatusOr<PackDevice> MakeCudaPackDevice(c10::Device device) {
  PackDevice made;
  made.device = device;
  made.make_codec = MakeDeviceCodecIn;
  DP_ASSIGN_OR_RETURN(made.bits, MakeDeviceBits());
  return {std::move(made)};
}

}  // namespace deltapipe
