// Sharded optimizer state (ZeRO-1; arXiv 1910.02054, "P_os"): each replica of a
// stage keeps the state of a range of the flat vector only.
//
//   auto optimizer = Optimizer::Create(options, LayoutOfRange(layout, owned));
//   ... on gradient.subspan(owned) and weights.subspan(owned) ...
//
// It holds for optimizers that update each element by itself, and for LAMB,
// whose ranks add up the squares of tensors that they share (cut_tensors.h).
// Checkpoints have the whole state, so that any number of replicas, sharing or
// not, goes on from them: StateOfRange cuts it, PutStateOfRange puts it
// together.
#ifndef DELTAPIPE_WORKER_OPTIM_SHARDED_STATE_H_
#define DELTAPIPE_WORKER_OPTIM_SHARDED_STATE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

/// By name, as Optimizer::ExportState has it.
using OptimizerState = std::map<std::string, std::vector<float>>;

/// The part of `layout` in `range`, as a layout of its own; segments that are
/// cut keep their names and groups.
ParameterLayout LayoutOfRange(const ParameterLayout& layout,
                              const ElementRange& range);

/// The part of the state of `num_elements` elements that is of `range`. What is
/// no value per element (a count of steps) is part of every range.
/// INVALID_ARGUMENT if a vector has another size.
absl::StatusOr<OptimizerState> StateOfRange(const OptimizerState& whole,
                                            int64_t num_elements,
                                            const ElementRange& range);

/// Puts what StateOfRange gave for `range` into its place of `whole`, which
/// grows as needed. INVALID_ARGUMENT if a vector has another size.
absl::Status PutStateOfRange(const OptimizerState& part, int64_t num_elements,
                             const ElementRange& range, OptimizerState* whole);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_SHARDED_STATE_H_
