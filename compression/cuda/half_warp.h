// Half a warp as a value: 16 threads on a GPU, a loop over 16 on the host, from
// one source.
//
// The payloads of the codecs are laid out for 16 lanes (element i of a group in
// lane i % 16, one Philox block per lane), and so are their sums. A kernel is
// therefore written as what one half warp does, in steps: EachLane runs
// statements in every lane, and between such steps the functions below pass
// values from lane to lane. Compiled by nvcc a lane is a thread; compiled as
// plain C++ the lanes take turns, so that ordinary tests run the very kernels
// that a GPU runs, one half warp after another.
//
//   Lanes<float> x;
//   EachLane([&](int lane) { x[lane] = in[lane]; });
//   const float sum = SumOf(x);  // the same in all lanes
//
// What holds the two together: a statement in EachLane uses its own lane's
// Lanes only; variables outside Lanes have one value for all lanes; conditions
// around EachLane and the functions are the same in all lanes. On a GPU the two
// halves of a warp may part. Blocks are one-dimensional, of whole warps.
#ifndef DELTAPIPE_COMPRESSION_CUDA_HALF_WARP_H_
#define DELTAPIPE_COMPRESSION_CUDA_HALF_WARP_H_

#include <cstdint>

#include "base/host_device.h"

namespace deltapipe {
namespace cuda {

constexpr int kLanes = 16;

#ifdef __CUDA_ARCH__

/// A value per lane: the thread's own.
template <class T>
class Lanes {
 public:
  __device__ T& operator[](int /*lane*/) { return value_; }
  __device__ const T& operator[](int /*lane*/) const { return value_; }

 private:
  T value_;
};

__device__ inline unsigned HalfWarpMask() {
  return 0xFFFFu << (threadIdx.x & kLanes);
}

/// Calls function(lane) in every lane; what they write to memory is seen by all
/// lanes afterwards.
template <class Function>
__device__ inline void EachLane(const Function& function) {
  function(static_cast<int>(threadIdx.x % kLanes));
  __syncwarp(HalfWarpMask());
}

template <class T>
__device__ inline T ValueOf(const Lanes<T>& x, int lane) {
  return __shfl_sync(HalfWarpMask(), x[0], lane, kLanes);
}

template <class T>
__device__ inline T SumOf(const Lanes<T>& x) {
  T sum = x[0];
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    sum += __shfl_down_sync(HalfWarpMask(), sum, width, kLanes);
  }
  return __shfl_sync(HalfWarpMask(), sum, 0, kLanes);
}

template <class T>
__device__ inline T LargestOf(const Lanes<T>& x) {
  T largest = x[0];
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    const T other = __shfl_xor_sync(HalfWarpMask(), largest, width, kLanes);
    largest = largest < other ? other : largest;
  }
  return largest;
}

__device__ inline uint32_t Ballot(const Lanes<bool>& x) {
  const unsigned votes = __ballot_sync(HalfWarpMask(), x[0]);
  return votes >> (threadIdx.x & kLanes) & 0xFFFFu;
}

__device__ inline void AtomicAdd(uint32_t* at, uint32_t value) {
  atomicAdd(at, value);
}
__device__ inline void AtomicAdd(uint64_t* at, uint64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(at),
            static_cast<unsigned long long>(value));
}
__device__ inline void AtomicMax(uint32_t* at, uint32_t value) {
  atomicMax(at, value);
}
__device__ inline void AtomicOr(uint32_t* at, uint32_t value) {
  atomicOr(at, value);
}

#else

template <class T>
class Lanes {
 public:
  T& operator[](int lane) { return values_[lane]; }
  const T& operator[](int lane) const { return values_[lane]; }

 private:
  T values_[kLanes];
};

// DP_HOST_DEVICE, since nvcc reads kernels once for the host, too.

template <class Function>
DP_HOST_DEVICE inline void EachLane(const Function& function) {
  for (int lane = 0; lane < kLanes; ++lane) function(lane);
}

/// The value of one lane.
template <class T>
DP_HOST_DEVICE inline T ValueOf(const Lanes<T>& x, int lane) {
  return x[lane];
}

/// The sum of all lanes by the tree that the kernels of the CPU use: lane l
/// takes what lane l + width has, for width 8, 4, 2, 1.
template <class T>
DP_HOST_DEVICE inline T SumOf(const Lanes<T>& x) {
  Lanes<T> sums = x;
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

template <class T>
DP_HOST_DEVICE inline T LargestOf(const Lanes<T>& x) {
  T largest = x[0];
  for (int lane = 1; lane < kLanes; ++lane) {
    largest = largest < x[lane] ? x[lane] : largest;
  }
  return largest;
}

/// Bit l is that of lane l.
DP_HOST_DEVICE inline uint32_t Ballot(const Lanes<bool>& x) {
  uint32_t votes = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    votes |= static_cast<uint32_t>(x[lane]) << lane;
  }
  return votes;
}

/// On memory that other half warps change in the same launch.
DP_HOST_DEVICE inline void AtomicAdd(uint32_t* at, uint32_t value) {
  *at += value;
}
DP_HOST_DEVICE inline void AtomicAdd(uint64_t* at, uint64_t value) {
  *at += value;
}
DP_HOST_DEVICE inline void AtomicMax(uint32_t* at, uint32_t value) {
  if (*at < value) *at = value;
}
DP_HOST_DEVICE inline void AtomicOr(uint32_t* at, uint32_t value) {
  *at |= value;
}

#endif  // __CUDA_ARCH__

/// The number of ones.
DP_HOST_DEVICE inline uint32_t CountOnes(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return static_cast<uint32_t>(__popc(bits));
#else
  return static_cast<uint32_t>(__builtin_popcount(bits));
#endif
}

/// What a half warp has to itself beside its lanes (shared memory on a GPU): a
/// code per element of a group of 64, by eights.
struct HalfWarpMemory {
  uint64_t eights[8];

  DP_HOST_DEVICE void SetCode(int place, uint32_t code) {
    reinterpret_cast<uint8_t*>(eights)[place] = static_cast<uint8_t>(code);
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_HALF_WARP_H_
