// Sums, sums of squares and maxima with a fixed order, for norms that replicas
// must compute to the same bit.
//
// The i-th element added goes into lane i % 16; a lane adds in order, in
// double; the lanes are then added in a fixed tree. The order depends on the
// elements alone, never on the machine's vector width, so that a compiler may
// put lanes side by side in registers without changing a bit.
#ifndef DELTAPIPE_WORKER_OPTIM_LANE_REDUCTION_H_
#define DELTAPIPE_WORKER_OPTIM_LANE_REDUCTION_H_

#include <cstdint>

#include "base/wide_vectors.h"

namespace deltapipe {

inline constexpr int64_t kReductionLanes = 16;

namespace lane_reduction_internal {

struct Identity {
  double operator()(double value) const { return value; }
};
struct Square {
  double operator()(double value) const { return value * value; }
};

template <typename Term>
class LaneAccumulator {
 public:
  template <typename Real>
  void Add(const Real* values, int64_t count) {
    int64_t begin = 0;
    while (next_lane_ != 0 && begin < count) AddOne(values[begin++]);
    const int64_t whole =
        begin + (count - begin) / kReductionLanes * kReductionLanes;
    for (int64_t i = begin; i < whole; i += kReductionLanes) {
      for (int64_t lane = 0; lane < kReductionLanes; ++lane) {
        lanes_[lane] += Term()(static_cast<double>(values[i + lane]));
      }
    }
    for (int64_t i = whole; i < count; ++i) AddOne(values[i]);
  }

  double Sum() const {
    double tree[kReductionLanes];
    for (int64_t lane = 0; lane < kReductionLanes; ++lane) {
      tree[lane] = lanes_[lane];
    }
    for (int64_t width = kReductionLanes / 2; width > 0; width /= 2) {
      for (int64_t lane = 0; lane < width; ++lane) {
        tree[lane] += tree[lane + width];
      }
    }
    return tree[0];
  }

 private:
  template <typename Real>
  void AddOne(Real value) {
    lanes_[next_lane_] += Term()(static_cast<double>(value));
    next_lane_ = (next_lane_ + 1) % kReductionLanes;
  }

  double lanes_[kReductionLanes] = {};
  int64_t next_lane_ = 0;
};

}  // namespace lane_reduction_internal

using LaneSum =
    lane_reduction_internal::LaneAccumulator<lane_reduction_internal::Identity>;
using LaneSumOfSquares =
    lane_reduction_internal::LaneAccumulator<lane_reduction_internal::Square>;

template <typename Real>
double SumOfSquares(const Real* values, int64_t count) {
  LaneSumOfSquares squares;
  WithWideVectors([=, &squares] { squares.Add(values, count); });
  return squares.Sum();
}

/// The maximum of non-negative values; NaN is passed over.
template <typename Real>
class LaneMaximum {
 public:
  void Add(const Real* values, int64_t count) {
    const int64_t whole = count / kReductionLanes * kReductionLanes;
    for (int64_t i = 0; i < whole; i += kReductionLanes) {
      for (int64_t lane = 0; lane < kReductionLanes; ++lane) {
        const Real value = values[i + lane];
        lanes_[lane] = value > lanes_[lane] ? value : lanes_[lane];
      }
    }
    for (int64_t i = whole; i < count; ++i) {
      const Real value = values[i];
      lanes_[i - whole] = value > lanes_[i - whole] ? value : lanes_[i - whole];
    }
  }

  Real Max() const {
    Real result = 0;
    for (const Real value : lanes_) result = value > result ? value : result;
    return result;
  }

 private:
  Real lanes_[kReductionLanes] = {};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_LANE_REDUCTION_H_
