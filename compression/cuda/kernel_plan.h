// Which kernels a codec's text stands for, and their formats.
#ifndef DELTAPIPE_COMPRESSION_CUDA_KERNEL_PLAN_H_
#define DELTAPIPE_COMPRESSION_CUDA_KERNEL_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compression/cuda/affine_kernels.h"
#include "compression/cuda/channel_kernels.h"
#include "compression/cuda/narrow_kernels.h"
#include "compression/cuda/prune_kernels.h"
#include "compression/cuda/sign_kernels.h"
#include "compression/kernels/int_scale.h"
#include "compression/kernels/minifloat_format.h"

namespace deltapipe {
namespace cuda {

struct KernelPlan {
  enum class Family {
    kPlain,
    kInt,
    kAffine,
    kSign,
    kMinifloat,
    kRows,
    kChannels,
    kPrune
  };

  std::string text;
  Family family = Family::kPlain;
  // That of the family counts.
  PlainFloat plain = PlainFloat::kFloat32;
  IntFormat integer;
  AffineFormat affine;
  SignFormat sign;
  MinifloatFormat minifloat;
  int64_t row = 64;
  ChannelFormat channel;
  PruneModel prune_model = PruneModel::kLognormal;
  double sparsity = 0;
  PruneValues prune_values;

  /// Of `count` values; of kPrune the most that there can be.
  int64_t PayloadBytes(int64_t count) const;
};

/// INVALID_ARGUMENT as MakeCodec; UNIMPLEMENTED for what has no kernel.
absl::StatusOr<KernelPlan> PlanKernels(absl::string_view text);

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_KERNEL_PLAN_H_
