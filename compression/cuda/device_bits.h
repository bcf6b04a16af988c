// What saved activations need on a GPU beside codecs: bits of masks and of what
// is not zero, and a count of tensors with values that are not finite.
//
// The results are those of worker/saved_activations/bit_mask.h. As of
// DeviceCodec all pointers are of the device, calls only put work on the
// stream, and each has an own kernel. Thread-safe.
//
//   DP_ASSIGN_OR_RETURN(auto bits, MakeDeviceBits());
//   DP_RETURN_IF_ERROR(bits->PackNonzeros(values, count, mask, stream));
//
// Includes neither CUDA's headers nor LibTorch's.
#ifndef DELTAPIPE_COMPRESSION_CUDA_DEVICE_BITS_H_
#define DELTAPIPE_COMPRESSION_CUDA_DEVICE_BITS_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compression/cuda/device_codec.h"

namespace deltapipe {

class DeviceBits {
 public:
  virtual ~DeviceBits() = default;

  /// `count` bools of a byte each, 0 or 1, and (count + 7) / 8 bytes of bits.
  /// All calls: INTERNAL if CUDA takes no work.
  virtual absl::Status PackBits(const uint8_t* bools, int64_t count,
                                uint8_t* bits, DeviceStream stream) = 0;
  virtual absl::Status UnpackBits(const uint8_t* bits, int64_t count,
                                  uint8_t* bools, DeviceStream stream) = 0;

  /// A bit for each value that is not 0 (NaN is not).
  virtual absl::Status PackNonzeros(const float* values, int64_t count,
                                    uint8_t* bits, DeviceStream stream) = 0;
  /// In place: what was 0 becomes 0, what was not but is not above 0 now the
  /// smallest normal number.
  virtual absl::Status RestoreZeros(const uint8_t* bits, int64_t count,
                                    float* values, DeviceStream stream) = 0;

  /// Adds 1 to words[1] if one of the values is not finite. words[0] is 0
  /// before and after.
  virtual absl::Status CountIfNotFinite(const float* values, int64_t count,
                                        uint32_t* words,
                                        DeviceStream stream) = 0;
};

/// On the current GPU. UNIMPLEMENTED in a build without --config=cuda.
absl::StatusOr<std::unique_ptr<DeviceBits>> MakeDeviceBits();

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_DEVICE_BITS_H_
