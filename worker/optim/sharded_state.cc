#include "worker/optim/sharded_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

/// Whether every rank has this state of its own. All else that the kinds of
/// CanShardState keep has a value per element; what has not is refused by its
/// size, not taken for everybody's.
bool IsOfEveryRank(absl::string_view name) { return name == "applied_steps"; }

absl::Status WrongSize(absl::string_view name, size_t size, int64_t expected) {
  return absl::InvalidArgumentError(absl::StrCat("optimizer state \"", name,
                                                 "\": expected ", expected,
                                                 " values, got ", size));
}

}  // namespace

ParameterLayout LayoutOfRange(const ParameterLayout& layout,
                              const ElementRange& range) {
  ParameterLayout part;
  for (const ParameterSegment& segment : layout.segments) {
    const ElementRange common = Overlap(RangeOf(segment), range);
    const int64_t size = common.end - common.begin;
    if (size <= 0) continue;
    ParameterSegment cut = segment;
    if (size < segment.num_elements) cut.shape = {size};
    cut.offset = part.num_elements;
    cut.num_elements = size;
    part.num_elements += cut.num_elements;
    part.segments.push_back(std::move(cut));
  }
  return part;
}

absl::StatusOr<OptimizerState> StateOfRange(const OptimizerState& whole,
                                            int64_t num_elements,
                                            const ElementRange& range) {
  OptimizerState part;
  for (const auto& [name, values] : whole) {
    if (IsOfEveryRank(name)) {
      part[name] = values;
      continue;
    }
    if (static_cast<int64_t>(values.size()) != num_elements) {
      return WrongSize(name, values.size(), num_elements);
    }
    part[name].assign(values.begin() + range.begin, values.begin() + range.end);
  }
  return part;
}

absl::Status PutStateOfRange(const OptimizerState& part, int64_t num_elements,
                             const ElementRange& range, OptimizerState* whole) {
  for (const auto& [name, values] : part) {
    if (IsOfEveryRank(name)) {
      (*whole)[name] = values;
      continue;
    }
    if (static_cast<int64_t>(values.size()) != range.end - range.begin) {
      return WrongSize(name, values.size(), range.end - range.begin);
    }
    std::vector<float>& all = (*whole)[name];
    all.resize(static_cast<size_t>(num_elements));
    std::copy(values.begin(), values.end(), all.begin() + range.begin);
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
