// How tests of optimizers compare vectors, and share a step's work out to
// replicas that drop some of it.
#ifndef DELTAPIPE_WORKER_OPTIM_TESTING_REPLICA_COMPARISON_H_
#define DELTAPIPE_WORKER_OPTIM_TESTING_REPLICA_COMPARISON_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {

/// ||a - b|| / ||b||
template <typename Real>
double RelativeDifference(const std::vector<Real>& a,
                          const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += b[i] * b[i];
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

/// To the bit.
template <typename Real>
bool ReplicasAreEqual(const std::vector<std::vector<Real>>& weights) {
  for (const auto& other : weights) {
    if (std::memcmp(other.data(), weights[0].data(),
                    other.size() * sizeof(Real)) != 0) {
      return false;
    }
  }
  return true;
}

/// Of 3 micro-batches each replica has done 0 to 3, together at least one: what
/// its mean gradient is multiplied by, so that the mean over the replicas is
/// that over the work done.
inline double WorkWeight(int rank, int num_ranks, int64_t step) {
  const auto done = [&](int r) {
    const int64_t count = (5 * r + 3 * step) % 7 % 4;
    return static_cast<double>(r == step % num_ranks && count == 0 ? 1 : count);
  };
  double sum = 0;
  for (int r = 0; r < num_ranks; ++r) sum += done(r);
  return done(rank) * num_ranks / sum;
}

/// The gradients of all ranks: at weights[rank], or at weights[0] if that is
/// all there is.
template <typename Real>
std::vector<std::vector<Real>> GradientsOf(
    const ToyProblem& problem, int64_t step, int num_ranks, bool drops_work,
    const std::vector<std::vector<Real>>& weights) {
  std::vector<std::vector<Real>> gradients;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const size_t at = weights.size() > 1 ? static_cast<size_t>(rank) : 0;
    gradients.push_back(problem.Gradient(rank, step, weights[at]));
    if (!drops_work) continue;
    const double weight = WorkWeight(rank, num_ranks, step);
    for (Real& value : gradients.back()) {
      value = static_cast<Real>(weight * static_cast<double>(value));
    }
  }
  return gradients;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_TESTING_REPLICA_COMPARISON_H_
