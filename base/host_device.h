// DP_HOST_DEVICE marks the small functions that kernels of the CPU and of CUDA
// share, so that one source gives the bits of both. It is empty without nvcc.
//
//   DP_HOST_DEVICE inline float Half(float x) { return 0.5f * x; }
#ifndef DELTAPIPE_BASE_HOST_DEVICE_H_
#define DELTAPIPE_BASE_HOST_DEVICE_H_

#ifdef __CUDACC__
#define DP_HOST_DEVICE __host__ __device__
#else
#define DP_HOST_DEVICE
#endif

#endif  // DELTAPIPE_BASE_HOST_DEVICE_H_
