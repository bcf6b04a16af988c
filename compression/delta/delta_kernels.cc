#include "compression/delta/delta_kernels.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "compression/delta/stored_float.h"

// Every loop is written without branches, so that the compiler vectorises it
// (-O3, set for this file), and instantiated three times: for what all
// processors of the architecture have, for AVX2 and for AVX-512. All give the
// same bits: they differ in the width of vectors only. Records never alias what
// is written.
namespace deltapipe {
namespace {

#if defined(__GNUC__) && defined(__x86_64__)
#define DP_TARGET_256 __attribute__((target("avx2")))
#define DP_TARGET_512                              \
  __attribute__((                                  \
      target("avx512f,avx512bw,avx512dq,avx512vl," \
             "prefer-vector-width=512")))
int WidestVectorBits() {
  if (__builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return 512;
  }
  return __builtin_cpu_supports("avx2") ? 256 : 128;
}
#else
#define DP_TARGET_256
#define DP_TARGET_512
int WidestVectorBits() { return 128; }
#endif
#define DP_KERNEL inline __attribute__((always_inline))

constexpr int kNumLanes = NormLanes::kNumLanes;
// A block stays in the first-level cache between its passes.
constexpr int64_t kBlock = 512;
static_assert(kBlock % kNumLanes == 0);

std::atomic<int>& VectorBits() {
  static std::atomic<int> bits{WidestVectorBits()};
  return bits;
}

double SumOfLanes(const double* lanes) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// Eight values as vectors of whatever width there is: the compiler does not
// find these sums by itself.
typedef float EightFloats __attribute__((vector_size(8 * sizeof(float))));
typedef double EightDoubles __attribute__((vector_size(8 * sizeof(double))));
static_assert(sizeof(EightDoubles) == sizeof(NormLanes::value));

/// sums[i] += values[i]^2.
DP_KERNEL void AddEightSquares(const float* values, EightDoubles* sums) {
  EightFloats floats;
  std::memcpy(&floats, values, sizeof(floats));
  const EightDoubles doubles = __builtin_convertvector(floats, EightDoubles);
  *sums += doubles * doubles;
}

/// Adds the squares of `count` values of each kind, the first of which are in
/// lane 0. Both at once: each sum waits for the one before it.
DP_KERNEL void AddSquares(const float* __restrict difference,
                          const float* __restrict value, int64_t count,
                          NormLanes* __restrict lanes) {
  EightDoubles differences;
  EightDoubles values;
  std::memcpy(&differences, lanes->difference, sizeof(differences));
  std::memcpy(&values, lanes->value, sizeof(values));
  int64_t i = 0;
  for (; i + kNumLanes <= count; i += kNumLanes) {
    AddEightSquares(difference + i, &differences);
    AddEightSquares(value + i, &values);
  }
  std::memcpy(lanes->difference, &differences, sizeof(differences));
  std::memcpy(lanes->value, &values, sizeof(values));
  for (int lane = 0; i < count; ++i, ++lane) {
    const double x = difference[i];
    const double y = value[i];
    lanes->difference[lane] += x * x;
    lanes->value[lane] += y * y;
  }
}

template <typename Store>
struct SubtractOnlyKernel {
  static DP_KERNEL void Run(const float* __restrict value,
                            const Store* __restrict record,
                            float* __restrict difference, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      difference[i] = value[i] - FromStore(record[i]);
    }
  }
};

template <typename Store>
struct SubtractKernel {
  static DP_KERNEL void Run(const float* __restrict value,
                            const Store* __restrict record,
                            float* __restrict difference, int64_t count,
                            NormLanes* __restrict lanes) {
    // Copies: in registers from one block to the next.
    NormLanes sums = *lanes;
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      const int64_t size = std::min(kBlock, count - begin);
      SubtractOnlyKernel<Store>::Run(value + begin, record + begin,
                                     difference + begin, size);
      AddSquares(difference + begin, value + begin, size, &sums);
    }
    *lanes = sums;
  }
};

// Squares of 32 values at a time, in as many sums that none waits for the one
// before.
struct SquareSums {
  static constexpr int64_t kValues = 32;
  EightFloats sums0{}, sums1{}, sums2{}, sums3{};

  DP_KERNEL void Add(const float* values) {
    AddEight(values, &sums0);
    AddEight(values + 8, &sums1);
    AddEight(values + 16, &sums2);
    AddEight(values + 24, &sums3);
  }
  DP_KERNEL float Total() const {
    const EightFloats sums = (sums0 + sums1) + (sums2 + sums3);
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) +
           ((sums[1] + sums[5]) + (sums[3] + sums[7]));
  }

 private:
  static DP_KERNEL void AddEight(const float* values, EightFloats* sums) {
    EightFloats floats;
    std::memcpy(&floats, values, sizeof(floats));
    *sums += floats * floats;
  }
};

template <typename Store>
struct SubtractAndEstimateKernel {
  static DP_KERNEL void Run(const float* __restrict value,
                            const Store* __restrict record,
                            float* __restrict difference, int64_t count,
                            SquaredNorms* __restrict norms) {
    SubtractOnlyKernel<Store>::Run(value, record, difference, count);
    SquareSums differences, values;
    int64_t i = 0;
    for (; i + SquareSums::kValues <= count; i += SquareSums::kValues) {
      differences.Add(difference + i);
      values.Add(value + i);
    }
    norms->difference += differences.Total();
    norms->value += values.Total();
    for (; i < count; ++i) {
      norms->difference += double{difference[i]} * difference[i];
      norms->value += double{value[i]} * value[i];
    }
  }
};

template <typename Store>
struct AddKernel {
  static DP_KERNEL void Run(const Store* __restrict record,
                            const float* __restrict restored,
                            Store* __restrict next, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      ToStore(FromStore(record[i]) + restored[i], &next[i]);
    }
  }
};

template <typename Store>
struct AddAndUseKernel {
  static DP_KERNEL void Run(const Store* __restrict record,
                            float* __restrict restored, Store* __restrict next,
                            int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      Store stored;
      ToStore(FromStore(record[i]) + restored[i], &stored);
      next[i] = stored;
      restored[i] = FromStore(stored);
    }
  }
};

template <typename Store>
struct StoreKernel {
  static DP_KERNEL void Run(const float* __restrict value,
                            Store* __restrict next, int64_t count) {
    for (int64_t i = 0; i < count; ++i) ToStore(value[i], &next[i]);
  }
};

template <typename Store>
struct StoreAndUseKernel {
  static DP_KERNEL void Run(float* __restrict value, Store* __restrict next,
                            int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      Store stored;
      ToStore(value[i], &stored);
      next[i] = stored;
      value[i] = FromStore(stored);
    }
  }
};

template <typename Store>
struct LoadKernel {
  static DP_KERNEL void Run(const Store* __restrict record,
                            float* __restrict value, int64_t count) {
    for (int64_t i = 0; i < count; ++i) value[i] = FromStore(record[i]);
  }
};

struct AddResidualKernel {
  static DP_KERNEL void Run(const float* value, const float* residual,
                            float* sum, int64_t count) {
// They may be in one place, but not in two that overlap.
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) sum[i] = value[i] + residual[i];
  }
};

struct LeaveResidualKernel {
  static DP_KERNEL void Run(const float* __restrict sent,
                            const float* __restrict restored,
                            float* __restrict next, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      next[i] = KeptResidual(sent[i] - restored[i]);
    }
  }
};

template <typename Kernel, typename... Arguments>
DP_TARGET_256 void Run256(Arguments... arguments) {
  Kernel::Run(arguments...);
}

template <typename Kernel, typename... Arguments>
DP_TARGET_512 void Run512(Arguments... arguments) {
  Kernel::Run(arguments...);
}

template <typename Kernel, typename... Arguments>
void Run(Arguments... arguments) {
  const int bits = VectorBits().load(std::memory_order_relaxed);
  if (bits >= 512) return Run512<Kernel>(arguments...);
  if (bits >= 256) return Run256<Kernel>(arguments...);
  Kernel::Run(arguments...);
}

}  // namespace

void SetVectorBitsForTest(int bits) {
  VectorBits() = std::min(bits, WidestVectorBits());
}

SquaredNorms NormLanes::Sum() const {
  return {SumOfLanes(difference), SumOfLanes(value)};
}

void SubtractRecordPart(const float* value, const uint16_t* record,
                        float* difference, int64_t count, NormLanes* lanes) {
  Run<SubtractKernel<uint16_t>>(value, record, difference, count, lanes);
}
void SubtractRecordPart(const float* value, const float* record,
                        float* difference, int64_t count, NormLanes* lanes) {
  Run<SubtractKernel<float>>(value, record, difference, count, lanes);
}

void SubtractRecordOnly(const float* value, const uint16_t* record,
                        float* difference, int64_t count) {
  Run<SubtractOnlyKernel<uint16_t>>(value, record, difference, count);
}
void SubtractRecordOnly(const float* value, const float* record,
                        float* difference, int64_t count) {
  Run<SubtractOnlyKernel<float>>(value, record, difference, count);
}

void SubtractRecordAndEstimate(const float* value, const uint16_t* record,
                               float* difference, int64_t count,
                               SquaredNorms* norms) {
  Run<SubtractAndEstimateKernel<uint16_t>>(value, record, difference, count,
                                           norms);
}
void SubtractRecordAndEstimate(const float* value, const float* record,
                               float* difference, int64_t count,
                               SquaredNorms* norms) {
  Run<SubtractAndEstimateKernel<float>>(value, record, difference, count,
                                        norms);
}

SquaredNorms SubtractRecord(const float* value, const uint16_t* record,
                            float* difference, int64_t count) {
  NormLanes lanes;
  SubtractRecordPart(value, record, difference, count, &lanes);
  return lanes.Sum();
}
SquaredNorms SubtractRecord(const float* value, const float* record,
                            float* difference, int64_t count) {
  NormLanes lanes;
  SubtractRecordPart(value, record, difference, count, &lanes);
  return lanes.Sum();
}

void AddToRecord(const uint16_t* record, const float* restored, uint16_t* next,
                 int64_t count) {
  Run<AddKernel<uint16_t>>(record, restored, next, count);
}
void AddToRecord(const float* record, const float* restored, float* next,
                 int64_t count) {
  Run<AddKernel<float>>(record, restored, next, count);
}

void AddToRecordAndUse(const uint16_t* record, float* restored, uint16_t* next,
                       int64_t count) {
  Run<AddAndUseKernel<uint16_t>>(record, restored, next, count);
}
void AddToRecordAndUse(const float* record, float* restored, float* next,
                       int64_t count) {
  Run<AddAndUseKernel<float>>(record, restored, next, count);
}

void StoreRecord(const float* value, uint16_t* next, int64_t count) {
  Run<StoreKernel<uint16_t>>(value, next, count);
}
void StoreRecord(const float* value, float* next, int64_t count) {
  Run<StoreKernel<float>>(value, next, count);
}

void StoreRecordAndUse(float* value, uint16_t* next, int64_t count) {
  Run<StoreAndUseKernel<uint16_t>>(value, next, count);
}
void StoreRecordAndUse(float* value, float* next, int64_t count) {
  Run<StoreAndUseKernel<float>>(value, next, count);
}

void LoadRecord(const uint16_t* record, float* value, int64_t count) {
  Run<LoadKernel<uint16_t>>(record, value, count);
}
void LoadRecord(const float* record, float* value, int64_t count) {
  Run<LoadKernel<float>>(record, value, count);
}

void AddResidual(const float* value, const float* residual, float* sum,
                 int64_t count) {
  Run<AddResidualKernel>(value, residual, sum, count);
}
void LeaveResidual(const float* sent, const float* restored, float* next,
                   int64_t count) {
  Run<LeaveResidualKernel>(sent, restored, next, count);
}

}  // namespace deltapipe
