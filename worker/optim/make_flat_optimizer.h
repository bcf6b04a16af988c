// The optimizer of each kind, for any arithmetic.
#ifndef DELTAPIPE_WORKER_OPTIM_MAKE_FLAT_OPTIMIZER_H_
#define DELTAPIPE_WORKER_OPTIM_MAKE_FLAT_OPTIMIZER_H_

#include <memory>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/optim/cut_tensors.h"
#include "worker/optim/flat_optimizer.h"

namespace deltapipe {

/// "adam", "adamw", ..., sorted.
absl::Span<const absl::string_view> OptimizerKinds();

/// Of options.kind; null if it is none of OptimizerKinds. The options are not
/// checked otherwise: Optimizer::Create does. `shared` is for lamb.
template <typename Real>
std::unique_ptr<FlatOptimizer<Real>> MakeFlatOptimizer(
    const OptimizerOptions& options, const ParameterLayout& layout,
    const SharedNorms& shared = {});

extern template std::unique_ptr<FlatOptimizer<float>> MakeFlatOptimizer(
    const OptimizerOptions&, const ParameterLayout&, const SharedNorms&);
extern template std::unique_ptr<FlatOptimizer<double>> MakeFlatOptimizer(
    const OptimizerOptions&, const ParameterLayout&, const SharedNorms&);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_MAKE_FLAT_OPTIMIZER_H_
