// Loading NCCL and CUDA: what is said where they are not, and the real ones
// where they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "worker/transport/nccl/cuda_library.h"
#include "worker/transport/nccl/nccl_context.h"
#include "worker/transport/nccl/nccl_library.h"
#include "worker/transport/nccl/shared_library.h"
#include "worker/transport/nccl/testing/fake_gpu.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// A library that every machine has, and that is neither.
constexpr char kAnotherLibrary[] = "libm.so.6";

std::string Text(const absl::Status& status) {
  return std::string(status.message());
}

TEST(LibrariesTest, NamesEveryPlaceWhereNcclIsNot) {
  const absl::Status status =
      LoadNccl({"libnccl-not-there.so", "/nowhere/libnccl.so.2"}).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(status), AllOf(HasSubstr("libnccl-not-there.so"),
                                  HasSubstr("/nowhere/libnccl.so.2"),
                                  HasSubstr("install libnccl.so.2, 2.22.0")));
}

TEST(LibrariesTest, RefusesALibraryThatIsNotNccl) {
  const absl::Status status = LoadNccl({kAnotherLibrary}).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(status), HasSubstr("libm.so.6 has no ncclGetVersion"));
}

TEST(LibrariesTest, NamesEveryPlaceWhereCudaIsNot) {
  const absl::Status status = LoadCuda({"libcudart-not-there.so"}).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(status), AllOf(HasSubstr("libcudart-not-there.so"),
                                  HasSubstr("install libcudart.so.13")));
}

TEST(LibrariesTest, RefusesALibraryThatIsNotCuda) {
  const absl::Status status = LoadCuda({kAnotherLibrary}).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(status), HasSubstr("libm.so.6 has no cudaGetDeviceCount"));
}

TEST(LibrariesTest, PrefersWhatIsLoadedAlready) {
  const auto library = SharedLibrary::Open({"libnothing.so", kAnotherLibrary});

  ASSERT_TRUE(library.ok()) << library.status();
  EXPECT_THAT(library->path(), EndsWith(kAnotherLibrary));
}

TEST(LibrariesTest, SpellsVersions) {
  EXPECT_EQ(NcclVersionText(22809), "2.28.9");
  EXPECT_EQ(NcclVersionText(23007), "2.30.7");
  EXPECT_EQ(NcclVersionText(2708), "2.7.8");
}

TEST(LibrariesTest, AContextNeedsTheDevice) {
  FakeGpu gpu;

  const absl::Status none =
      NcclContext::Create(gpu.nccl(), gpu.cuda(0), 0).status();
  const auto one = NcclContext::Create(gpu.nccl(), gpu.cuda(1), 0);

  EXPECT_EQ(none.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(none), HasSubstr("CUDA has no device 0 (it sees 0)"));
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ((*one)->description(), "NCCL 2.28.9 on CUDA device 0");
}

TEST(LibrariesTest, LoadsTheRealNccl) {
  const auto library = SharedLibrary::Open(NcclCandidates());
  if (!library.ok()) {
    GTEST_SKIP() << "no NCCL on this machine: " << library.status().message();
  }

  const auto nccl = LoadNccl();

  ASSERT_TRUE(nccl.ok()) << nccl.status();
  EXPECT_GE(nccl->version, kOldestNcclVersion);
  EXPECT_STREQ(nccl->get_error_string(kNcclSuccess), "no error");
  std::printf("loaded NCCL %s from %s\n",
              NcclVersionText(nccl->version).c_str(), nccl->path.c_str());
}

TEST(LibrariesTest, LoadsTheRealCuda) {
  const auto library = SharedLibrary::Open(CudaCandidates());
  if (!library.ok()) {
    GTEST_SKIP() << "no CUDA on this machine: " << library.status().message();
  }

  const auto cuda = LoadCuda();

  ASSERT_TRUE(cuda.ok()) << cuda.status();
  EXPECT_STREQ(cuda->get_error_string(kCudaSuccess), "no error");
  std::printf("loaded the CUDA run time from %s\n", cuda->path.c_str());
}

}  // namespace
}  // namespace deltapipe
