#include "compression/delta/delta_kernels.h"

#include "base/float_cast.h"

// Written without branches so that the compiler vectorises every loop (-O3, set
// for this file). Records never alias what is written.
namespace deltapipe {
namespace {

constexpr int kNumLanes = 8;

inline float FromStore(uint16_t stored) { return BFloat16ToFloat(stored); }
inline float FromStore(float stored) { return stored; }

inline void ToStore(float value, uint16_t* stored) {
  const uint32_t bits = FloatBits(value);
  const int32_t magnitude = static_cast<int32_t>(bits & 0x7FFFFFFFu);
  int32_t rounded = (magnitude + 0x7FFF + ((magnitude >> 16) & 1)) >> 16;
  rounded = rounded > 0x7F7F ? 0x7F7F : rounded;
  rounded = magnitude > 0x7F800000 ? 0x7FC0 : rounded;
  *stored = static_cast<uint16_t>(((bits >> 16) & 0x8000u) |
                                  static_cast<uint32_t>(rounded));
}

inline void ToStore(float value, float* stored) {
  const uint32_t bits = FloatBits(value);
  const int32_t magnitude = static_cast<int32_t>(bits & 0x7FFFFFFFu);
  int32_t kept = magnitude > 0x7F7FFFFF ? 0x7F7FFFFF : magnitude;
  kept = magnitude > 0x7F800000 ? 0x7FC00000 : kept;
  *stored = BitsToFloat((bits & 0x80000000u) | static_cast<uint32_t>(kept));
}

double SumOfLanes(const double* lanes) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

template <typename Store>
SquaredNorms Subtract(const float* __restrict value,
                      const Store* __restrict record,
                      float* __restrict difference, int64_t count) {
  double difference_lanes[kNumLanes] = {};
  double value_lanes[kNumLanes] = {};
  int64_t i = 0;
  for (; i + kNumLanes <= count; i += kNumLanes) {
    for (int lane = 0; lane < kNumLanes; ++lane) {
      const float a = value[i + lane];
      const float d = a - FromStore(record[i + lane]);
      difference[i + lane] = d;
      difference_lanes[lane] += static_cast<double>(d) * d;
      value_lanes[lane] += static_cast<double>(a) * a;
    }
  }
  for (int lane = 0; i < count; ++i, ++lane) {
    const float a = value[i];
    const float d = a - FromStore(record[i]);
    difference[i] = d;
    difference_lanes[lane] += static_cast<double>(d) * d;
    value_lanes[lane] += static_cast<double>(a) * a;
  }
  return {SumOfLanes(difference_lanes), SumOfLanes(value_lanes)};
}

template <typename Store>
void Add(const Store* __restrict record, const float* __restrict restored,
         Store* __restrict next, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    ToStore(FromStore(record[i]) + restored[i], &next[i]);
  }
}

template <typename Store>
void AddAndUse(const Store* __restrict record, float* __restrict restored,
               Store* __restrict next, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    Store stored;
    ToStore(FromStore(record[i]) + restored[i], &stored);
    next[i] = stored;
    restored[i] = FromStore(stored);
  }
}

template <typename Store>
void StoreAll(const float* __restrict value, Store* __restrict next,
              int64_t count) {
  for (int64_t i = 0; i < count; ++i) ToStore(value[i], &next[i]);
}

template <typename Store>
void StoreAllAndUse(float* __restrict value, Store* __restrict next,
                    int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    Store stored;
    ToStore(value[i], &stored);
    next[i] = stored;
    value[i] = FromStore(stored);
  }
}

template <typename Store>
void Load(const Store* __restrict record, float* __restrict value,
          int64_t count) {
  for (int64_t i = 0; i < count; ++i) value[i] = FromStore(record[i]);
}

}  // namespace

SquaredNorms SubtractRecord(const float* value, const uint16_t* record,
                            float* difference, int64_t count) {
  return Subtract(value, record, difference, count);
}
SquaredNorms SubtractRecord(const float* value, const float* record,
                            float* difference, int64_t count) {
  return Subtract(value, record, difference, count);
}

void AddToRecord(const uint16_t* record, const float* restored, uint16_t* next,
                 int64_t count) {
  Add(record, restored, next, count);
}
void AddToRecord(const float* record, const float* restored, float* next,
                 int64_t count) {
  Add(record, restored, next, count);
}

void AddToRecordAndUse(const uint16_t* record, float* restored, uint16_t* next,
                       int64_t count) {
  AddAndUse(record, restored, next, count);
}
void AddToRecordAndUse(const float* record, float* restored, float* next,
                       int64_t count) {
  AddAndUse(record, restored, next, count);
}

void StoreRecord(const float* value, uint16_t* next, int64_t count) {
  StoreAll(value, next, count);
}
void StoreRecord(const float* value, float* next, int64_t count) {
  StoreAll(value, next, count);
}

void StoreRecordAndUse(float* value, uint16_t* next, int64_t count) {
  StoreAllAndUse(value, next, count);
}
void StoreRecordAndUse(float* value, float* next, int64_t count) {
  StoreAllAndUse(value, next, count);
}

void LoadRecord(const uint16_t* record, float* value, int64_t count) {
  Load(record, value, count);
}
void LoadRecord(const float* record, float* value, int64_t count) {
  Load(record, value, count);
}

void AddResidual(const float* __restrict value,
                 const float* __restrict residual, float* __restrict sum,
                 int64_t count) {
  for (int64_t i = 0; i < count; ++i) sum[i] = value[i] + residual[i];
}

void LeaveResidual(const float* __restrict sent,
                   const float* __restrict restored, float* __restrict next,
                   int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = FloatBits(sent[i] - restored[i]);
    const bool is_finite =
        static_cast<int32_t>(bits & 0x7FFFFFFFu) < 0x7F800000;
    next[i] = BitsToFloat(is_finite ? bits : 0u);
  }
}

}  // namespace deltapipe
