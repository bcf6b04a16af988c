#include "worker/optim/make_flat_optimizer.h"

#include "worker/optim/adam.h"
#include "worker/optim/lamb.h"
#include "worker/optim/onebit_adam.h"
#include "worker/optim/onebit_lamb.h"
#include "worker/optim/sgd.h"
#include "worker/optim/zero_one_adam.h"

namespace deltapipe {

absl::Span<const absl::string_view> OptimizerKinds() {
  static constexpr absl::string_view kKinds[] = {
      "adam",        "adamw", "lamb",         "onebit_adam",
      "onebit_lamb", "sgd",   "zero_one_adam"};
  return kKinds;
}

template <typename Real>
std::unique_ptr<FlatOptimizer<Real>> MakeFlatOptimizer(
    const OptimizerOptions& options, const ParameterLayout& layout,
    const SharedNorms& shared) {
  const std::string& kind = options.kind;
  if (kind == "sgd") return std::make_unique<Sgd<Real>>(options, layout);
  if (kind == "adam" || kind == "adamw") {
    return std::make_unique<Adam<Real>>(options, layout);
  }
  if (kind == "lamb") {
    return std::make_unique<Lamb<Real>>(options, layout, shared);
  }
  if (kind == "onebit_adam") {
    return std::make_unique<OneBitAdam<Real>>(options, layout);
  }
  if (kind == "onebit_lamb") {
    return std::make_unique<OneBitLamb<Real>>(options, layout);
  }
  if (kind == "zero_one_adam") {
    return std::make_unique<ZeroOneAdam<Real>>(options, layout);
  }
  return nullptr;
}

template std::unique_ptr<FlatOptimizer<float>> MakeFlatOptimizer(
    const OptimizerOptions&, const ParameterLayout&, const SharedNorms&);
template std::unique_ptr<FlatOptimizer<double>> MakeFlatOptimizer(
    const OptimizerOptions&, const ParameterLayout&, const SharedNorms&);

}  // namespace deltapipe
