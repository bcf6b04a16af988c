// Our declarations against the real header, where this machine has one.
#include "worker/transport/nccl/nccl_abi.h"

#include <gtest/gtest.h>

#if __has_include(<nccl.h>) && __has_include(<cuda_runtime.h>)
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdio>
#include <functional>
#include <type_traits>

#include "worker/transport/nccl/cuda_library.h"
#include "worker/transport/nccl/nccl_library.h"

namespace deltapipe {
namespace {

static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId));
static_assert(alignof(NcclUniqueId) == alignof(ncclUniqueId));
static_assert(kNcclUniqueIdBytes == NCCL_UNIQUE_ID_BYTES);

static_assert(sizeof(NcclResult) == sizeof(ncclResult_t));
static_assert(int{kNcclSuccess} == int{ncclSuccess});
static_assert(int{kNcclUnhandledCudaError} == int{ncclUnhandledCudaError});
static_assert(int{kNcclSystemError} == int{ncclSystemError});
static_assert(int{kNcclInternalError} == int{ncclInternalError});
static_assert(int{kNcclInvalidArgument} == int{ncclInvalidArgument});
static_assert(int{kNcclInvalidUsage} == int{ncclInvalidUsage});
static_assert(int{kNcclRemoteError} == int{ncclRemoteError});
static_assert(int{kNcclInProgress} == int{ncclInProgress});

static_assert(sizeof(NcclDataType) == sizeof(ncclDataType_t));
static_assert(int{kNcclUint8} == int{ncclUint8});
static_assert(kNcclUndefined == NCCL_CONFIG_UNDEF_INT);

// Ours ends where the 2.17 one did; what follows is new.
static_assert(sizeof(NcclConfig) ==
              offsetof(ncclConfig_t, netName) + sizeof(ncclConfig_t::netName));
static_assert(offsetof(NcclConfig, size) == offsetof(ncclConfig_t, size));
static_assert(offsetof(NcclConfig, magic) == offsetof(ncclConfig_t, magic));
static_assert(offsetof(NcclConfig, version) == offsetof(ncclConfig_t, version));
static_assert(offsetof(NcclConfig, blocking) ==
              offsetof(ncclConfig_t, blocking));
static_assert(offsetof(NcclConfig, cga_cluster_size) ==
              offsetof(ncclConfig_t, cgaClusterSize));
static_assert(offsetof(NcclConfig, min_ctas) ==
              offsetof(ncclConfig_t, minCTAs));
static_assert(offsetof(NcclConfig, max_ctas) ==
              offsetof(ncclConfig_t, maxCTAs));
static_assert(offsetof(NcclConfig, net_name) ==
              offsetof(ncclConfig_t, netName));

static_assert(int{kCudaSuccess} == int{cudaSuccess});
static_assert(int{kCudaNotReady} == int{cudaErrorNotReady});
static_assert(int{kCudaHostToDevice} == int{cudaMemcpyHostToDevice});
static_assert(int{kCudaDeviceToHost} == int{cudaMemcpyDeviceToHost});
static_assert(kCudaStreamNonBlocking == cudaStreamNonBlocking);
static_assert(kCudaEventDisableTiming == cudaEventDisableTiming);

// What is passed, once handles and enumerations are taken as what they are.
template <typename T, bool = std::is_enum_v<T>>
struct Plain {
  using Type = std::conditional_t<
      std::is_pointer_v<T>, void*,
      std::conditional_t<std::is_class_v<T>,
                         std::integral_constant<size_t, sizeof(T)>, T>>;
};
template <typename T>
struct Plain<T, true> {
  using Type = std::underlying_type_t<T>;
};
// The real enumerations have no fixed type: unsigned for GCC, int for us.
template <typename T>
using PlainType =
    std::conditional_t<std::is_same_v<typename Plain<T>::Type, unsigned> &&
                           std::is_enum_v<T>,
                       int, typename Plain<T>::Type>;

template <typename Function>
struct Shape;
template <typename Result, typename... Arguments>
struct Shape<Result(Arguments...)> {
  using Type = PlainType<Result>(PlainType<Arguments>...);
};
template <typename Function>
struct Shape<std::function<Function>> : Shape<Function> {};

template <typename Ours, typename Real>
inline constexpr bool kSameShape =
    std::is_same_v<typename Shape<Ours>::Type, typename Shape<Real>::Type>;

#define DP_SAME(structure, member, function)                           \
  static_assert(kSameShape<decltype(structure::member),                \
                           std::remove_pointer_t<decltype(function)>>, \
                #structure "::" #member " differs from " #function)

DP_SAME(NcclLibrary, get_version, ncclGetVersion);
DP_SAME(NcclLibrary, get_unique_id, ncclGetUniqueId);
DP_SAME(NcclLibrary, comm_init_rank_config, ncclCommInitRankConfig);
DP_SAME(NcclLibrary, comm_get_async_error, ncclCommGetAsyncError);
DP_SAME(NcclLibrary, comm_finalize, ncclCommFinalize);
DP_SAME(NcclLibrary, comm_destroy, ncclCommDestroy);
DP_SAME(NcclLibrary, comm_abort, ncclCommAbort);
DP_SAME(NcclLibrary, send, ncclSend);
DP_SAME(NcclLibrary, recv, ncclRecv);
DP_SAME(NcclLibrary, group_start, ncclGroupStart);
DP_SAME(NcclLibrary, group_end, ncclGroupEnd);
DP_SAME(NcclLibrary, get_error_string, ncclGetErrorString);
DP_SAME(NcclLibrary, get_last_error, ncclGetLastError);

DP_SAME(CudaLibrary, get_device_count, cudaGetDeviceCount);
DP_SAME(CudaLibrary, set_device, cudaSetDevice);
DP_SAME(CudaLibrary, free, cudaFree);
DP_SAME(CudaLibrary, free_host, cudaFreeHost);
DP_SAME(CudaLibrary, stream_create_with_flags, cudaStreamCreateWithFlags);
DP_SAME(CudaLibrary, stream_destroy, cudaStreamDestroy);
DP_SAME(CudaLibrary, memcpy_async, cudaMemcpyAsync);
DP_SAME(CudaLibrary, event_query, cudaEventQuery);
DP_SAME(CudaLibrary, event_destroy, cudaEventDestroy);
DP_SAME(CudaLibrary, get_last_error, cudaGetLastError);
DP_SAME(CudaLibrary, get_error_string, cudaGetErrorString);
// These have overloads for C++; the cast finds the one of C.
using Malloc = cudaError_t (*)(void**, size_t);
DP_SAME(CudaLibrary, malloc, static_cast<Malloc>(&cudaMalloc));
using HostAlloc = cudaError_t (*)(void**, size_t, unsigned);
DP_SAME(CudaLibrary, host_alloc, static_cast<HostAlloc>(&cudaHostAlloc));
using EventCreate = cudaError_t (*)(cudaEvent_t*, unsigned);
DP_SAME(CudaLibrary, event_create_with_flags,
        static_cast<EventCreate>(&cudaEventCreateWithFlags));
using EventRecord = cudaError_t (*)(cudaEvent_t, cudaStream_t);
DP_SAME(CudaLibrary, event_record, static_cast<EventRecord>(&cudaEventRecord));

TEST(NcclAbiTest, EqualsTheRealHeader) {
  std::printf("compared with nccl.h of %d.%d.%d\n", NCCL_MAJOR, NCCL_MINOR,
              NCCL_PATCH);
  EXPECT_GE(NCCL_VERSION_CODE, kOldestNcclVersion);
}

}  // namespace
}  // namespace deltapipe

#else

TEST(NcclAbiTest, EqualsTheRealHeader) {
  GTEST_SKIP()
      << "no nccl.h and cuda_runtime.h on this machine to compare with";
}

#endif
