// The border between C++ and nvcc: launches and memory, with plain types.
// cuda_launch.cu has what this declares; used by device_codec_cuda.cc alone.
#ifndef DELTAPIPE_COMPRESSION_CUDA_CUDA_LAUNCH_H_
#define DELTAPIPE_COMPRESSION_CUDA_CUDA_LAUNCH_H_

#include <cstddef>
#include <cstdint>

struct CUstream_st;

namespace deltapipe {
namespace cuda {

// All return a cudaError_t, 0 where all is well.

/// Puts body(index, memory) for index 0 to num_half_warps - 1 on the stream.
/// Instantiated for the bodies of *_kernels.h.
template <class Body>
int LaunchOnCuda(const Body& body, int64_t num_half_warps, CUstream_st* stream);

int CountCudaDevices(int* count);
/// Memory of zeros.
int AllocateOnCuda(size_t bytes, void** memory);
int FreeOnCuda(void* memory);
/// Puts the copy on the default stream.
int CopyWithinCuda(const void* from, size_t bytes, void* to);
/// Both wait for the whole device before.
int CopyToCuda(const void* from, size_t bytes, void* to);
int CopyFromCuda(const void* from, size_t bytes, void* to);

/// The sentence of CUDA for an error.
const char* CudaErrorText(int error);

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_CUDA_LAUNCH_H_
