#include "compression/delta/delta_kernels.h"

#include <algorithm>
#include <atomic>

#include "compression/delta/stored_float.h"

// Every loop is written without branches, so that the compiler vectorises it
// (-O3, set for this file), and instantiated twice: for what all processors of
// the architecture have, and for AVX2. Both give the same bits: they differ in
// the width of vectors only. Records never alias what is written.
namespace deltapipe {
namespace {

#if defined(__GNUC__) && defined(__x86_64__)
#define DP_WIDE_TARGET __attribute__((target("avx2")))
bool HasWideVectors() { return __builtin_cpu_supports("avx2"); }
#else
#define DP_WIDE_TARGET
bool HasWideVectors() { return false; }
#endif
#define DP_KERNEL inline __attribute__((always_inline))

constexpr int kNumLanes = 8;
// A block stays in the first-level cache between its passes.
constexpr int64_t kBlock = 512;
static_assert(kBlock % kNumLanes == 0);

std::atomic<bool>& UsesWideVectors() {
  static std::atomic<bool> uses{HasWideVectors()};
  return uses;
}

double SumOfLanes(const double* lanes) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/// Adds the squares of `count` values, the first of which is in lane 0.
DP_KERNEL void AddSquares(const float* __restrict values, int64_t count,
                          double* __restrict lanes) {
  int64_t i = 0;
  for (; i + kNumLanes <= count; i += kNumLanes) {
    for (int lane = 0; lane < kNumLanes; ++lane) {
      const double value = values[i + lane];
      lanes[lane] += value * value;
    }
  }
  for (int lane = 0; i < count; ++i, ++lane) {
    const double value = values[i];
    lanes[lane] += value * value;
  }
}

template <typename Store>
struct SubtractKernel {
  static DP_KERNEL SquaredNorms Run(const float* __restrict value,
                                    const Store* __restrict record,
                                    float* __restrict difference,
                                    int64_t count) {
    double difference_lanes[kNumLanes] = {};
    double value_lanes[kNumLanes] = {};
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      const int64_t size = std::min(kBlock, count - begin);
      for (int64_t i = begin; i < begin + size; ++i) {
        difference[i] = value[i] - FromStore(record[i]);
      }
      AddSquares(difference + begin, size, difference_lanes);
      AddSquares(value + begin, size, value_lanes);
    }
    return {SumOfLanes(difference_lanes), SumOfLanes(value_lanes)};
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
  static DP_KERNEL void Run(const float* __restrict value,
                            const float* __restrict residual,
                            float* __restrict sum, int64_t count) {
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
DP_WIDE_TARGET auto RunWide(Arguments... arguments) {
  return Kernel::Run(arguments...);
}

template <typename Kernel, typename... Arguments>
auto Run(Arguments... arguments) {
  return UsesWideVectors().load(std::memory_order_relaxed)
             ? RunWide<Kernel>(arguments...)
             : Kernel::Run(arguments...);
}

}  // namespace

void SetWideVectorsForTest(bool enabled) {
  UsesWideVectors() = enabled && HasWideVectors();
}

SquaredNorms SubtractRecord(const float* value, const uint16_t* record,
                            float* difference, int64_t count) {
  return Run<SubtractKernel<uint16_t>>(value, record, difference, count);
}
SquaredNorms SubtractRecord(const float* value, const float* record,
                            float* difference, int64_t count) {
  return Run<SubtractKernel<float>>(value, record, difference, count);
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
