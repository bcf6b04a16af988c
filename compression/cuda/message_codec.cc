#include "compression/cuda/message_codec.h"

namespace deltapipe {
namespace cuda {
namespace {

/// Begins each part of the scratch memory on its own cache line.
constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

absl::StatusOr<MessagePlans> MessagePlans::Parse(absl::string_view text) {
  MessagePlans plans;
  DP_ASSIGN_OR_RETURN(plans.spec, ParseBoundarySpec(text, /*direction=*/0));
  if (plans.spec.store == BoundarySpec::Store::kCodec) {
    return absl::UnimplementedError(absl::StrCat(
        "codec ", plans.spec.Text(),
        " has no CUDA kernel: kernels keep records in bf16 or fp32, and "
        "residuals in fp32; take such a store, or encode on the host"));
  }
  DP_ASSIGN_OR_RETURN(plans.codec, PlanKernels(plans.spec.codec->text()));
  if (plans.spec.first != nullptr) {
    DP_ASSIGN_OR_RETURN(plans.first, PlanKernels(plans.spec.first->text()));
  }
  return plans;
}

absl::StatusOr<std::unique_ptr<Scratch>> Scratch::Create(
    std::unique_ptr<DeviceMemory> memory, const MessagePlans& plans,
    int64_t max_elements) {
  constexpr int64_t kNumWords = 4;
  const auto channels = [&](const KernelPlan& plan) {
    return plan.family == KernelPlan::Family::kChannels
               ? plan.channel.NumChannels(max_elements)
               : 1;
  };
  const int64_t num_maxima =
      std::max<int64_t>({1, channels(plans.codec), channels(plans.first)});
  // Surveys of the smallest runs, and sums of them by 256, and of those.
  const bool has_norms = plans.spec.kind == BoundarySpec::Kind::kDelta ||
                         plans.codec.family == KernelPlan::Family::kPrune;
  const int64_t num_pairs =
      has_norms ? max_elements / 256 + max_elements / 32768 + 64 : 0;
  const auto sums_signs = [](const KernelPlan& plan) {
    return plan.family == KernelPlan::Family::kSign && plan.sign.block == 0;
  };
  const bool has_sums = sums_signs(plans.codec) || sums_signs(plans.first);
  const int64_t num_sums = has_sums ? max_elements / kSignRun + 1 : 0;
  const int64_t histograms = 2 * kHistogramSize * int64_t{sizeof(uint32_t)};
  const int64_t words = kNumWords * int64_t{sizeof(uint32_t)};
  const int64_t maxima = num_maxima * int64_t{sizeof(uint32_t)};
  const int64_t norms = 2 * num_pairs * int64_t{sizeof(double)};
  const int64_t sums = num_sums * int64_t{sizeof(double)};
  const bool prunes = plans.codec.family == KernelPlan::Family::kPrune ||
                      plans.first.family == KernelPlan::Family::kPrune;
  const int64_t pruned = prunes ? max_elements : 0;
  const int64_t num_tiles = pruned / kPruneRun + 1;
  const int64_t tiles = 2 * num_tiles * int64_t{sizeof(TileCounts)};
  const int64_t excesses = pruned * int64_t{sizeof(float)};
  std::unique_ptr<Scratch> scratch(new Scratch(std::move(memory)));
  DP_ASSIGN_OR_RETURN(
      scratch->start_,
      scratch->memory_->Allocate(
          Aligned(histograms) + Aligned(words) + Aligned(maxima) +
          Aligned(norms) + Aligned(sums) + Aligned(sizeof(PruneState)) +
          Aligned(tiles) + Aligned(pruned) + Aligned(excesses)));
  uint8_t* at = static_cast<uint8_t*>(scratch->start_);
  const auto take = [&at](int64_t bytes) {
    uint8_t* const part = at;
    at += Aligned(bytes);
    return part;
  };
  scratch->histograms_ = reinterpret_cast<uint32_t*>(take(histograms));
  scratch->words_ = reinterpret_cast<uint32_t*>(take(words));
  scratch->maxima_ = reinterpret_cast<uint32_t*>(take(maxima));
  scratch->norms_ = reinterpret_cast<double*>(take(norms));
  scratch->sums_ = reinterpret_cast<double*>(take(sums));
  scratch->prune_ = reinterpret_cast<PruneState*>(take(sizeof(PruneState)));
  scratch->tiles_ = reinterpret_cast<TileCounts*>(take(tiles));
  scratch->num_tiles_ = num_tiles;
  scratch->marks_ = take(pruned);
  scratch->excesses_ = reinterpret_cast<float*>(take(excesses));
  return scratch;
}

}  // namespace cuda
}  // namespace deltapipe
