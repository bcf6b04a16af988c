// A PackDevice for tests: the host, which runs the kernels of CUDA.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TESTING_HOST_PACK_DEVICE_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TESTING_HOST_PACK_DEVICE_H_

#include "worker/saved_activations/pack_device.h"

namespace deltapipe {

/// Codecs are MessageCodecs whose half warps take turns (host_launcher.h).
PackDevice MakeHostPackDevice();

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TESTING_HOST_PACK_DEVICE_H_
