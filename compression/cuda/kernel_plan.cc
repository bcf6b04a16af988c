#include "compression/cuda/kernel_plan.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"
#include "compression/cuda/row_kernels.h"
#include "compression/kernels/int_quantize.h"
#include "compression/kernels/minifloat_quantize.h"

namespace deltapipe {
namespace cuda {
namespace {

absl::Status NoKernel(absl::string_view codec, absl::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("codec ", codec, " has no CUDA kernel", what,
                   ": take one that has, or encode on the host"));
}

bool IsAffine(const CodecArguments& arguments) {
  return arguments.Word("levels") == "affine" &&
         arguments.Word("scale") != "log8" &&
         (arguments.Word("round") == "stochastic" ||
          arguments.Word("clip") == "minmax");
}

absl::Status PlanInt(const CodecArguments& arguments, KernelPlan* plan) {
  if (IsAffine(arguments) && arguments.Word("axis") == "row" &&
      arguments.Word("channel") == "off") {
    plan->family = KernelPlan::Family::kAffine;
    plan->affine.bits = static_cast<int>(arguments.Integer("bits"));
    plan->affine.block = arguments.Integer("block");
    plan->affine.is_stochastic = arguments.Word("round") == "stochastic";
    plan->affine.has_float32_scales = arguments.Word("scale") == "fp32";
    return absl::OkStatus();
  }
  if (arguments.Word("levels") != "symmetric" ||
      arguments.Word("scale") != "log8" || arguments.Word("axis") != "row" ||
      arguments.Word("channel") != "off") {
    return NoKernel(
        plan->text,
        " (int has those of levels=symmetric with scale=log8, and of "
        "levels=affine with scale=bf16|fp32 that search no clip, "
        "both with axis=row and channel=off)");
  }
  plan->family = KernelPlan::Family::kInt;
  IntFormat& format = plan->integer;
  format.bits = static_cast<int>(arguments.Integer("bits"));
  format.block = arguments.Integer("block");
  format.is_stochastic = arguments.Word("round") == "stochastic";
  const std::string& clip = arguments.Word("clip");
  format.searches_clip = clip != "minmax" && !format.is_stochastic;
  format.model = !format.searches_clip ? IntClipModel::kNone
                 : clip == "laplace"   ? IntClipModel::kLaplace
                 : clip == "gauss"     ? IntClipModel::kGauss
                                       : IntClipModel::kNone;
  return absl::OkStatus();
}

absl::Status PlanFp(const CodecArguments& arguments, KernelPlan* plan) {
  if (arguments.IsWord("exponent")) {
    return NoKernel(plan->text, " (fp has those of a given split)");
  }
  plan->family = KernelPlan::Family::kMinifloat;
  plan->minifloat.exponent_bits =
      static_cast<int>(arguments.Integer("exponent"));
  plan->minifloat.mantissa_bits =
      static_cast<int>(arguments.Integer("mantissa"));
  plan->minifloat.block = arguments.Integer("block");
  plan->minifloat.is_stochastic = arguments.Word("round") == "stochastic";
  return absl::OkStatus();
}

absl::Status PlanLuq(const CodecArguments& arguments, KernelPlan* plan) {
  if (arguments.Word("range") != "exact") {
    return NoKernel(plan->text, " (luq has that of range=exact)");
  }
  plan->family = KernelPlan::Family::kMinifloat;
  plan->minifloat.exponent_bits = 3;
  plan->minifloat.mantissa_bits = 0;
  plan->minifloat.block = arguments.Integer("block");
  plan->minifloat.is_stochastic = true;
  plan->minifloat.num_samples = static_cast<int>(arguments.Integer("samples"));
  return absl::OkStatus();
}

absl::Status PlanRows(const CodecArguments& arguments, KernelPlan* plan) {
  if (arguments.Word("search") != "minmax") {
    return NoKernel(plan->text, " (rowwise4 has that of search=minmax)");
  }
  plan->family = KernelPlan::Family::kRows;
  const int64_t row = arguments.Integer("row");
  plan->row = row == 0 ? 64 : row;
  return absl::OkStatus();
}

absl::Status PlanPrune(const CodecArguments& arguments, KernelPlan* plan) {
  DP_ASSIGN_OR_RETURN(const KernelPlan values,
                      PlanKernels(CodecSpecText(arguments.Codec("values"))));
  const bool is_minifloat = values.family == KernelPlan::Family::kMinifloat &&
                            values.minifloat.block != 0;
  if (!is_minifloat && values.family != KernelPlan::Family::kPlain) {
    return NoKernel(plan->text,
                    " (prune has those of values=luq and values=fp with a "
                    "block, values=cast and values=none)");
  }
  plan->family = KernelPlan::Family::kPrune;
  plan->sparsity = arguments.Number("sparsity");
  const std::string& model = arguments.Word("model");
  plan->prune_model = model == "exact"    ? PruneModel::kExact
                      : model == "normal" ? PruneModel::kNormal
                                          : PruneModel::kLognormal;
  plan->prune_values = {is_minifloat, values.minifloat, values.plain};
  return absl::OkStatus();
}

}  // namespace

int64_t KernelPlan::PayloadBytes(int64_t count) const {
  switch (family) {
    case Family::kPlain:
      return count * PlainFloatBytes(plain);
    case Family::kInt:
      return IntPayloadBytes(integer, count);
    case Family::kAffine:
      return affine.PayloadBytes(count);
    case Family::kSign:
      return SignPayloadBytes(sign, count);
    case Family::kMinifloat:
      return MinifloatPayloadBytes(minifloat, count);
    case Family::kRows:
      return RowsPayloadBytes(row, count);
    case Family::kChannels:
      return channel.PayloadBytes(count);
    case Family::kPrune:
      return count == 0 ? 0
                        : PruneMapEnd(count) + (2 * count + 7) / 8 +
                              prune_values.PayloadBytes(count);
  }
  return 0;
}

absl::StatusOr<KernelPlan> PlanKernels(absl::string_view text) {
  DP_ASSIGN_OR_RETURN(const CodecSpec spec, ParseCodecSpec(text));
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<Codec> codec,
                      MakeCodecFromSpec(spec));
  DP_ASSIGN_OR_RETURN(const CodecInfo* const info, FindCodec(spec));
  DP_ASSIGN_OR_RETURN(const CodecArguments arguments,
                      CodecArguments::Read(spec, info->parameters));
  KernelPlan plan;
  plan.text = codec->text();
  if (info->name == "int") {
    DP_RETURN_IF_ERROR(PlanInt(arguments, &plan));
  } else if (info->name == "sign") {
    plan.family = KernelPlan::Family::kSign;
    plan.sign.block = arguments.Integer("block");
    plan.sign.is_mean = arguments.Word("scale") == "mean";
  } else if (info->name == "luq") {
    DP_RETURN_IF_ERROR(PlanLuq(arguments, &plan));
  } else if (info->name == "fp") {
    DP_RETURN_IF_ERROR(PlanFp(arguments, &plan));
  } else if (info->name == "cast") {
    plan.plain = arguments.Word("type") == "bf16" ? PlainFloat::kBFloat16
                                                  : PlainFloat::kFloat16;
  } else if (info->name == "rowwise4") {
    DP_RETURN_IF_ERROR(PlanRows(arguments, &plan));
  } else if (info->name == "aqsgd") {
    plan.family = KernelPlan::Family::kChannels;
    plan.channel.bits = static_cast<int>(arguments.Integer("bits"));
    plan.channel.row = arguments.Integer("row");
  } else if (info->name == "prune") {
    DP_RETURN_IF_ERROR(PlanPrune(arguments, &plan));
  } else if (info->name != "none") {
    return NoKernel(plan.text, "");
  }
  return plan;
}

}  // namespace cuda
}  // namespace deltapipe
