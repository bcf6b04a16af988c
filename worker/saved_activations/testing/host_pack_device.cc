#include "worker/saved_activations/testing/host_pack_device.h"

#include "compression/cuda/testing/host_launcher.h"

namespace deltapipe {

PackDevice MakeHostPackDevice() {
  PackDevice device;
  device.make_codec = MakeHostLaunchedCodecIn;
  device.bits = MakeHostLaunchedBits();
  return device;
}

}  // namespace deltapipe
