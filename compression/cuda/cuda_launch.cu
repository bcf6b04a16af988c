#include <cuda_runtime.h>

#include "compression/cuda/affine_kernels.h"
#include "compression/cuda/bit_kernels.h"
#include "compression/cuda/channel_kernels.h"
#include "compression/cuda/cuda_launch.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/int_kernels.h"
#include "compression/cuda/minifloat_kernels.h"
#include "compression/cuda/narrow_kernels.h"
#include "compression/cuda/prune_kernels.h"
#include "compression/cuda/prune_threshold_kernels.h"
#include "compression/cuda/row_kernels.h"
#include "compression/cuda/sign_kernels.h"
#include "compression/cuda/survey_kernels.h"
#include "compression/cuda/zero_words.h"

namespace deltapipe {
namespace cuda {
namespace {

constexpr int kHalfWarpsPerBlock = 16;

template <class Body>
__global__ void __launch_bounds__(kHalfWarpsPerBlock* kLanes)
    RunHalfWarps(const Body body, int64_t num_half_warps) {
  __shared__ HalfWarpMemory memories[kHalfWarpsPerBlock];
  const int in_block = static_cast<int>(threadIdx.x) / kLanes;
  const int64_t index =
      static_cast<int64_t>(blockIdx.x) * kHalfWarpsPerBlock + in_block;
  if (index < num_half_warps) body(index, &memories[in_block]);
}

}  // namespace

template <class Body>
int LaunchOnCuda(const Body& body, int64_t num_half_warps,
                 CUstream_st* stream) {
  // The most blocks of a launch.
  constexpr int64_t kMaxBlocks = 2147483647;
  if (num_half_warps == 0) return cudaSuccess;
  const int64_t blocks =
      (num_half_warps + kHalfWarpsPerBlock - 1) / kHalfWarpsPerBlock;
  if (blocks > kMaxBlocks) return cudaErrorInvalidConfiguration;
  RunHalfWarps<<<static_cast<unsigned>(blocks), kHalfWarpsPerBlock * kLanes, 0,
                 stream>>>(body, num_half_warps);
  return cudaGetLastError();
}

template int LaunchOnCuda(const AffineDecode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const AffineEncode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const BitsDecode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const BitsEncode<BoolBit>&, int64_t, CUstream_st*);
template int LaunchOnCuda(const BitsEncode<NonzeroBit>&, int64_t, CUstream_st*);
template int LaunchOnCuda(const ChannelDecode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const ChannelEncode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const ChannelMaxima&, int64_t, CUstream_st*);
template int LaunchOnCuda(const ChooseDelta&, int64_t, CUstream_st*);
template int LaunchOnCuda(const ChooseWindow&, int64_t, CUstream_st*);
template int LaunchOnCuda(const FlagCount&, int64_t, CUstream_st*);
template int LaunchOnCuda(const IntDecode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const IntEncode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const LargestInput&, int64_t, CUstream_st*);
template int LaunchOnCuda(const MinifloatDecode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const MinifloatEncode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const NotFiniteFlag&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PlainDecode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PlainEncode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const Placed<MinifloatDecode>&, int64_t,
                          CUstream_st*);
template int LaunchOnCuda(const Placed<MinifloatEncode>&, int64_t,
                          CUstream_st*);
template int LaunchOnCuda(const Placed<PlainDecode>&, int64_t, CUstream_st*);
template int LaunchOnCuda(const Placed<PlainEncode>&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneCensus&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneCheck&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneCheckPayload&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneChoose&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneConclude&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneCount&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneCountKept&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneCountLarge&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneDecide&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneFinish<DecodeMessage>&, int64_t,
                          CUstream_st*);
template int LaunchOnCuda(const PruneFinish<EncodeMessage>&, int64_t,
                          CUstream_st*);
template int LaunchOnCuda(const PruneFit&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneHistogram&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PrunePackMarks&, int64_t, CUstream_st*);
template int LaunchOnCuda(const PruneWrite&, int64_t, CUstream_st*);
template int LaunchOnCuda(const RowDecode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const RowEncode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const SignConclude&, int64_t, CUstream_st*);
template int LaunchOnCuda(const SignDecode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const SignEncode&, int64_t, CUstream_st*);
template int LaunchOnCuda(const SignKeep&, int64_t, CUstream_st*);
template int LaunchOnCuda(const SumPairs&, int64_t, CUstream_st*);
template int LaunchOnCuda(const Survey&, int64_t, CUstream_st*);
template int LaunchOnCuda(const ZeroWords&, int64_t, CUstream_st*);
template int LaunchOnCuda(const ZerosRestore&, int64_t, CUstream_st*);

int CountCudaDevices(int* count) { return cudaGetDeviceCount(count); }

int AllocateOnCuda(size_t bytes, void** memory) {
  cudaError_t error = cudaMalloc(memory, bytes);
  if (error != cudaSuccess) return error;
  error = cudaMemset(*memory, 0, bytes);
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  if (error != cudaSuccess) cudaFree(*memory);
  return error;
}

int FreeOnCuda(void* memory) { return cudaFree(memory); }

int CopyWithinCuda(const void* from, size_t bytes, void* to) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, nullptr);
}

int CopyToCuda(const void* from, size_t bytes, void* to) {
  const cudaError_t error = cudaDeviceSynchronize();
  return error != cudaSuccess
             ? error
             : cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice);
}

int CopyFromCuda(const void* from, size_t bytes, void* to) {
  const cudaError_t error = cudaDeviceSynchronize();
  return error != cudaSuccess
             ? error
             : cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost);
}

const char* CudaErrorText(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // namespace cuda
}  // namespace deltapipe
