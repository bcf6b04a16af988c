#include "worker/optim/flat_optimizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "worker/optim/lane_reduction.h"

namespace deltapipe {

template <typename Real>
typename FlatOptimizer<Real>::Request FlatOptimizer<Real>::Prepare(
    int64_t step, double learning_rate, absl::Span<const Real> weights,
    absl::Span<Real> gradient) {
  Request request = PrepareEarly(step, learning_rate, weights, gradient);
  TakeGradient({0, layout_.num_elements});
  return request;
}

template <typename Real>
typename FlatOptimizer<Real>::Request FlatOptimizer<Real>::PrepareEarly(
    int64_t step, double learning_rate, absl::Span<const Real> weights,
    absl::Span<Real> gradient) {
  gradient_ = gradient;
  Request request;
  request.values = gradient;
  return request;
}

template <typename Real>
double FlatOptimizer<Real>::MeanGradientSquaredNorm() {
  double sum = 0;
  for (const ParameterSegment& segment : layout_.segments) {
    sum +=
        SumOfSquares(gradient_.data() + segment.offset, segment.num_elements);
  }
  return sum;
}

template <typename Real>
CompressionEvidence FlatOptimizer<Real>::EvidenceOfVariance(
    absl::Span<const Real> variance) {
  LaneSum sum;
  sum.Add(variance.data(), static_cast<int64_t>(variance.size()));
  CompressionEvidence evidence;
  evidence.variance_sum = sum.Sum();
  return evidence;
}

template <typename Real>
typename FlatOptimizer<Real>::State FlatOptimizer<Real>::ExportState() const {
  State state;
  for (const auto& [name, values] : state_) state[name] = *values;
  return state;
}

template <typename Real>
absl::Status FlatOptimizer<Real>::ImportState(const State& state) {
  for (const auto& [name, values] : state_) {
    const auto it = state.find(name);
    if (it == state.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "optimizer state of ", options_.kind, ": \"", name, "\" is missing"));
    }
    if (it->second.size() != values->size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "optimizer state of ", options_.kind, ": \"", name, "\": expected ",
          values->size(), " values, got ", it->second.size()));
    }
  }
  for (const auto& entry : state) {
    const bool is_known = std::any_of(
        state_.begin(), state_.end(),
        [&](const auto& known) { return known.first == entry.first; });
    if (!is_known) {
      return absl::InvalidArgumentError(absl::StrCat(
          "optimizer state of ", options_.kind, ": \"", entry.first,
          "\" is unknown; was it written by another "
          "kind of optimizer?"));
    }
  }
  for (const auto& [name, values] : state_) *values = state.at(name);
  StateImported();
  return absl::OkStatus();
}

template class FlatOptimizer<float>;
template class FlatOptimizer<double>;

}  // namespace deltapipe
