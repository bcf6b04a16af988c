// CompressionEvidence: what one stage's optimizer knows about whether its
// variance has settled, for CompressionSwitch (compression_switch.h).
//
// Sums and counts alone, so that the evidence of a model is the sum of that of
// its stages.
#ifndef DELTAPIPE_WORKER_OPTIM_COMPRESSION_EVIDENCE_H_
#define DELTAPIPE_WORKER_OPTIM_COMPRESSION_EVIDENCE_H_

namespace deltapipe {

struct CompressionEvidence {
  /// ||v||_1 of the variance that full-precision steps maintain.
  double variance_sum = 0;
  /// Over the tensors with a LAMB coefficient c: the relative standard
  /// deviation of c over its last steps, summed; and their number. None for
  /// Adam.
  double coefficient_spread_sum = 0;
  double num_coefficients = 0;
  /// While compressing, tensors whose LAMB factor comes from a fresh variance,
  /// and those among them where it lies at factor_min or factor_max. None for
  /// Adam, which has no fresh variance.
  double num_factors = 0;
  double num_factors_at_limit = 0;

  CompressionEvidence& operator+=(const CompressionEvidence& other) {
    variance_sum += other.variance_sum;
    coefficient_spread_sum += other.coefficient_spread_sum;
    num_coefficients += other.num_coefficients;
    num_factors += other.num_factors;
    num_factors_at_limit += other.num_factors_at_limit;
    return *this;
  }
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_COMPRESSION_EVIDENCE_H_
