// Sums of squares and maxima with a fixed order, for norms that replicas must
// compute to the same bit.
//
// Element i of a segment goes into lane i % 16; a lane adds in order, in
// double; the lanes are then added in a fixed tree. The order depends on the
// segment alone, never on the machine's vector width, so that a compiler may
// put lanes side by side in registers without changing a bit.
#ifndef DELTAPIPE_WORKER_OPTIM_LANE_REDUCTION_H_
#define DELTAPIPE_WORKER_OPTIM_LANE_REDUCTION_H_

#include <cstdint>

namespace deltapipe {

inline constexpr int64_t kReductionLanes = 16;

class LaneSumOfSquares {
 public:
  /// Adds `count` elements; all calls but a segment's last must have a multiple
  /// of 16 of them.
  template <typename Real>
  void Add(const Real* values, int64_t count) {
    const int64_t whole = count / kReductionLanes * kReductionLanes;
    for (int64_t i = 0; i < whole; i += kReductionLanes) {
      for (int64_t lane = 0; lane < kReductionLanes; ++lane) {
        const double value = static_cast<double>(values[i + lane]);
        lanes_[lane] += value * value;
      }
    }
    for (int64_t i = whole; i < count; ++i) {
      const double value = static_cast<double>(values[i]);
      lanes_[i - whole] += value * value;
    }
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
  double lanes_[kReductionLanes] = {};
};

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
