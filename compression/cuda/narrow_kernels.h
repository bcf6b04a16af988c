// The kernels of `none` and `cast`: fp32, bf16 and fp16 as bytes, equal to
// those of the host in every bit.
#ifndef DELTAPIPE_COMPRESSION_CUDA_NARROW_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_NARROW_KERNELS_H_

#include <cstdint>
#include <cstring>

#include "base/float_cast.h"
#include "base/host_device.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"

namespace deltapipe {
namespace cuda {

enum class PlainFloat : int32_t { kFloat32, kBFloat16, kFloat16 };

DP_HOST_DEVICE inline int64_t PlainFloatBytes(PlainFloat type) {
  return type == PlainFloat::kFloat32 ? 4 : 2;
}

/// Half warp `group` encodes 64 elements.
struct PlainEncode {
  PlainFloat type;
  EncodeMessage message;
  Turn turn;
  uint8_t* payload;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine()) return;
    EachLane([&](int lane) {
      if (group == 0 && lane == 0 && outcome != nullptr) {
        outcome->payload_bytes = message.count * PlainFloatBytes(type);
        outcome->is_delta = message.prediction == Prediction::kRecord;
      }
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i < message.count) EncodeOne(i);
      }
    });
  }

 private:
  DP_HOST_DEVICE void EncodeOne(int64_t i) const {
    const float input = message.Input(i);
    float restored = input;
    if (type == PlainFloat::kFloat32) {
      Write(payload + 4 * i, input);
    } else if (type == PlainFloat::kBFloat16) {
      const uint16_t narrow = FloatToBFloat16(input);
      Write(payload + 2 * i, narrow);
      restored = BFloat16ToFloat(narrow);
    } else {
      const uint16_t narrow = FloatToFloat16(input);
      Write(payload + 2 * i, narrow);
      restored = Float16ToFloat(narrow);
    }
    if (message.KeepsState()) message.Keep(i, input, restored);
  }

  // Payloads may begin at any address.
  template <class Value>
  DP_HOST_DEVICE static void Write(uint8_t* at, Value value) {
    uint8_t bytes[sizeof(Value)];
    std::memcpy(bytes, &value, sizeof(value));
    for (size_t byte = 0; byte < sizeof(Value); ++byte) at[byte] = bytes[byte];
  }
};

/// Half warp `group` decodes 64 elements.
struct PlainDecode {
  PlainFloat type;
  DecodeMessage message;
  const uint8_t* payload;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    EachLane([&](int lane) {
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i < message.count) message.Put(i, Value(i));
      }
    });
  }

 private:
  DP_HOST_DEVICE float Value(int64_t i) const {
    const int64_t size = PlainFloatBytes(type);
    uint32_t bits = 0;
    for (int64_t byte = 0; byte < size; ++byte) {
      bits |= static_cast<uint32_t>(payload[size * i + byte]) << (8 * byte);
    }
    if (type == PlainFloat::kFloat32) return BitsToFloat(bits);
    const uint16_t narrow = static_cast<uint16_t>(bits);
    return type == PlainFloat::kBFloat16 ? BFloat16ToFloat(narrow)
                                         : Float16ToFloat(narrow);
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_NARROW_KERNELS_H_
