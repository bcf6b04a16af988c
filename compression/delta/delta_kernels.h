// The passes over a sample's elements that delta prediction adds around a
// codec: the difference to the record before it, the sum stored as the next
// record after it. One read of memory each.
//
// Called by the boundary codecs. Stateless and thread-safe. Records are bf16
// (uint16_t) or fp32 (float); the same inputs give the same bits on every
// machine: no reassociation, no fused multiply-add, a fixed tree of sums.
//
// Storing rounds to nearest, ties to even, and never overflows: what is larger
// than the largest finite number of the store's type, infinities included,
// becomes that number with its sign. NaN becomes the quiet NaN 0x7FC0 with its
// sign (0x7FC00000 in fp32).
#ifndef DELTAPIPE_COMPRESSION_DELTA_DELTA_KERNELS_H_
#define DELTAPIPE_COMPRESSION_DELTA_DELTA_KERNELS_H_

#include <cstdint>

namespace deltapipe {

/// Squared norms of a sample and of its difference to the record: sums in
/// double over 8 lanes (element i in lane i mod 8), lanes added pairwise.
struct SquaredNorms {
  double difference = 0;
  double value = 0;
};

/// difference[i] = value[i] - record[i], in fp32; may be infinite for finite
/// inputs, and then so is the norm.
SquaredNorms SubtractRecord(const float* value, const uint16_t* record,
                            float* difference, int64_t count);
SquaredNorms SubtractRecord(const float* value, const float* record,
                            float* difference, int64_t count);

/// SquaredNorms of a sample that comes in parts: the lanes so far.
struct NormLanes {
  static constexpr int kNumLanes = 8;
  double difference[kNumLanes] = {};
  double value[kNumLanes] = {};

  SquaredNorms Sum() const;
};

/// SubtractRecord for the next part of a sample; of all parts but the last
/// `count` is a multiple of NormLanes::kNumLanes.
void SubtractRecordPart(const float* value, const uint16_t* record,
                        float* difference, int64_t count, NormLanes* lanes);
void SubtractRecordPart(const float* value, const float* record,
                        float* difference, int64_t count, NormLanes* lanes);

/// SubtractRecord without norms.
void SubtractRecordOnly(const float* value, const uint16_t* record,
                        float* difference, int64_t count);
void SubtractRecordOnly(const float* value, const float* record,
                        float* difference, int64_t count);

/// SubtractRecord for a part of a sample, of at most 4096 values, with norms
/// that are cheaper: sums of fp32, added to `norms`. Where the sums so far are
/// finite and those of `value` at least 2^-100 for each value, each norm is
/// within kNormEstimateError times the sum of both; elsewhere it may be
/// anything.
void SubtractRecordAndEstimate(const float* value, const uint16_t* record,
                               float* difference, int64_t count,
                               SquaredNorms* norms);
void SubtractRecordAndEstimate(const float* value, const float* record,
                               float* difference, int64_t count,
                               SquaredNorms* norms);
/// A product, 4096 / 32 additions and a few more, 2^-24 each, and what
/// underflows.
constexpr double kNormEstimateError = 0x1p-16;

/// next[i] = store(record[i] + restored[i]).
void AddToRecord(const uint16_t* record, const float* restored, uint16_t* next,
                 int64_t count);
void AddToRecord(const float* record, const float* restored, float* next,
                 int64_t count);

/// The same, and writes the stored value back: restored[i] = float(next[i]).
void AddToRecordAndUse(const uint16_t* record, float* restored, uint16_t* next,
                       int64_t count);
void AddToRecordAndUse(const float* record, float* restored, float* next,
                       int64_t count);

/// next[i] = store(value[i]).
void StoreRecord(const float* value, uint16_t* next, int64_t count);
void StoreRecord(const float* value, float* next, int64_t count);

/// The same, and writes the stored value back: value[i] = float(next[i]).
void StoreRecordAndUse(float* value, uint16_t* next, int64_t count);
void StoreRecordAndUse(float* value, float* next, int64_t count);

/// value[i] = float(record[i]).
void LoadRecord(const uint16_t* record, float* value, int64_t count);
void LoadRecord(const float* record, float* value, int64_t count);

/// Keeps to vectors of at most so many bits, 128, 256 (AVX2) or 512 (AVX-512);
/// at first the widest that the processor has. The bits do not depend on it.
void SetVectorBitsForTest(int bits);

/// Error feedback: sum[i] = value[i] + residual[i]. `sum` may be `residual`.
void AddResidual(const float* value, const float* residual, float* sum,
                 int64_t count);
/// next[i] = sent[i] - restored[i], or 0 where that is not finite.
void LeaveResidual(const float* sent, const float* restored, float* next,
                   int64_t count);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_DELTA_KERNELS_H_
