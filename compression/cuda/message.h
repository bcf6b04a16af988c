// What kernels of all codecs read their values from and hand their results to:
// plain tensors, differences to records, or values plus residuals. So each
// codec has one kernel to encode and one to decode, which predicts, quantises,
// packs and updates the state in one pass.
//
// AQ-SGD, arXiv 2206.01299, section 3: m <- store(m + deq(Q(a - m))), at both
// ends; compression/delta/delta_kernels.h has the arithmetic. Records and
// residuals may be updated in place: an element is read and written by one
// lane.
#ifndef DELTAPIPE_COMPRESSION_CUDA_MESSAGE_H_
#define DELTAPIPE_COMPRESSION_CUDA_MESSAGE_H_

#include <cstdint>

#include "base/host_device.h"
#include "compression/delta/stored_float.h"

namespace deltapipe {
namespace cuda {

enum class Prediction : int32_t {
  kNone,      // the value, no state
  kValue,     // the value, which becomes the record
  kRecord,    // the difference to the record
  kResidual,  // the value plus the residual
};

/// What the host learns of an encoding, in memory of the device.
struct EncodeOutcome {
  int64_t payload_bytes;
  /// 1: a delta was encoded; 0: a value.
  uint32_t is_delta;
  uint32_t unused;
};

/// Why a payload cannot be one, as bits, in memory of the device: what Decode
/// of the host's codec refuses with INVALID_ARGUMENT. 0: nothing is wrong.
enum PayloadProblem : uint32_t {
  kUnusedBitsAreSet = 1,
  kImpossibleScale = 2,
  kImpossibleWindow = 4,
  kImpossibleSize = 8,
};

/// Lets a kernel do nothing where the choice between delta and value, made on
/// the device before it, is not its own.
struct Turn {
  const uint32_t* is_delta = nullptr;  // null: always
  uint32_t mine = 0;

  DP_HOST_DEVICE bool IsMine() const {
    return is_delta == nullptr || *is_delta == mine;
  }
};

/// The state of `count` elements: bf16 or fp32 records, fp32 residuals.
struct StateView {
  const void* before = nullptr;  // null: zeros
  void* after = nullptr;
  bool is_float32 = false;

  DP_HOST_DEVICE float Load(int64_t i) const {
    return is_float32 ? FromStore(static_cast<const float*>(before)[i])
                      : FromStore(static_cast<const uint16_t*>(before)[i]);
  }
  /// Returns what was stored.
  DP_HOST_DEVICE float Store(int64_t i, float value) const {
    if (is_float32) {
      float stored;
      ToStore(value, &stored);
      static_cast<float*>(after)[i] = stored;
      return stored;
    }
    uint16_t stored;
    ToStore(value, &stored);
    static_cast<uint16_t*>(after)[i] = stored;
    return FromStore(stored);
  }
};

struct EncodeMessage {
  Prediction prediction = Prediction::kNone;
  const float* values = nullptr;
  int64_t count = 0;
  StateView state;

  DP_HOST_DEVICE bool KeepsState() const {
    return prediction != Prediction::kNone;
  }
  /// What is quantised; 0 past the end.
  DP_HOST_DEVICE float Input(int64_t i) const {
    if (i >= count) return 0;
    const float value = values[i];
    if (prediction == Prediction::kRecord) return value - state.Load(i);
    if (prediction == Prediction::kResidual && state.before != nullptr) {
      return value + static_cast<const float*>(state.before)[i];
    }
    return value;
  }
  /// The same for what was decoded again, as DecodeMessage has it.
  DP_HOST_DEVICE void Put(int64_t i, float restored) const {
    Keep(i, Input(i), restored);
  }
  /// Updates the state of element i < count, whose input decodes to `restored`.
  DP_HOST_DEVICE void Keep(int64_t i, float input, float restored) const {
    switch (prediction) {
      case Prediction::kNone:
        return;
      case Prediction::kValue:
        state.Store(i, restored);
        return;
      case Prediction::kRecord:
        state.Store(i, state.Load(i) + restored);
        return;
      case Prediction::kResidual:
        static_cast<float*>(state.after)[i] = KeptResidual(input - restored);
        return;
    }
  }
};

struct DecodeMessage {
  Prediction prediction = Prediction::kNone;  // never kResidual
  float* values = nullptr;
  int64_t count = 0;
  StateView state;

  /// Takes element i < count, decoded to `restored`.
  DP_HOST_DEVICE void Put(int64_t i, float restored) const {
    if (prediction == Prediction::kNone) {
      values[i] = restored;
    } else {
      values[i] = state.Store(i, prediction == Prediction::kRecord
                                     ? state.Load(i) + restored
                                     : restored);
    }
  }
};

DP_HOST_DEVICE inline uint32_t MagnitudeBits(float value) {
  return FloatBits(value) & 0x7FFFFFFFu;
}

DP_HOST_DEVICE inline int64_t SmallerOf(int64_t a, int64_t b) {
  return a < b ? a : b;
}

DP_HOST_DEVICE inline uint32_t LargerOf(uint32_t a, uint32_t b) {
  return a < b ? b : a;
}

/// a / b of numbers >= 0, in 32 bits where these suffice: GPUs divide 64 bits
/// by long programs.
DP_HOST_DEVICE inline int64_t QuotientOf(int64_t a, int64_t b) {
  return ((a | b) >> 32) == 0
             ? static_cast<uint32_t>(a) / static_cast<uint32_t>(b)
             : a / b;
}

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_MESSAGE_H_
