// Codecs that work on tensors in a GPU's memory.
//
// Made from the same text as MakeCodec (or with delta(...) or ef(...) around
// it), and of the same payloads: either end of a channel may be on either
// device. Decoding and state are equal in every bit to the host's; so are
// encodings, but for sign(block=0) and prune(model=normal), which are made from
// sums in another order, and for the choice between delta and value at the very
// limit. There are kernels for none, cast, int (symmetric levels with 8-bit
// scales, affine ones with others), sign, luq, fp, aqsgd,
// rowwise4(search=minmax), prune, and delta and ef of them.
//
// Calls only put work on the stream: they allocate nothing and wait for
// nothing. All pointers are of the device. What depends on values is written to
// the device, too: the outcome of an encoding, and the problem of a payload
// that cannot be one; the caller copies them when it needs them. An object owns
// its scratch memory, so its calls must be on one stream, or be ordered by
// events; it is used by one thread at a time.
//
//   DP_ASSIGN_OR_RETURN(auto codec, MakeDeviceCodec("int(4)", num_elements));
//   DP_RETURN_IF_ERROR(codec->Encode(values, num_elements, key, payload,
//                                    outcome, stream));
//
// Includes neither CUDA's headers nor LibTorch's.
#ifndef DELTAPIPE_COMPRESSION_CUDA_DEVICE_CODEC_H_
#define DELTAPIPE_COMPRESSION_CUDA_DEVICE_CODEC_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/philox.h"
#include "compression/cuda/device_memory.h"
#include "compression/cuda/message.h"

struct CUstream_st;

namespace deltapipe {

/// A cudaStream_t or CUstream; null is the default stream.
using DeviceStream = CUstream_st*;

/// Values and their state before and after the call: records (bf16, or fp32
/// with store=fp32) or residuals (fp32). `before` may be null: there is none
/// yet. `after` may be `before`.
struct DeviceSample {
  const float* values = nullptr;
  int64_t count = 0;
  const void* before = nullptr;
  void* after = nullptr;
};

/// A payload as it was received. `problem` is a word of the device to which
/// bits of cuda::PayloadProblem are added, 0 before; `values` are then
/// unspecified, and state must not be kept.
struct DevicePayload {
  const uint8_t* bytes = nullptr;
  int64_t size = 0;
  uint32_t* problem = nullptr;
};

class DeviceCodec {
 public:
  virtual ~DeviceCodec() = default;

  /// As BoundarySpec::Text.
  virtual std::string text() const = 0;
  /// Of the largest payload, delta or value.
  virtual int64_t MaxPayloadBytes(int64_t count) const = 0;

  /// Codec::Encode: writes the payload (room for MaxPayloadBytes) and
  /// `outcome`. All calls: INVALID_ARGUMENT for a count that is negative or
  /// above that of the object's making, FAILED_PRECONDITION for a codec of
  /// another kind, INTERNAL if CUDA takes no work.
  virtual absl::Status Encode(const float* values, int64_t count,
                              const RandomKey& key, uint8_t* payload,
                              cuda::EncodeOutcome* outcome,
                              DeviceStream stream) = 0;

  /// Codec::Decode: INVALID_ARGUMENT for a size that cannot be; for bytes that
  /// cannot be, see DevicePayload.
  virtual absl::Status Decode(const DevicePayload& payload, float* values,
                              int64_t count, DeviceStream stream) = 0;

  /// Of delta(...), as the sender of a boundary: encodes the difference to the
  /// record or, where that does not pay or there is none, the value; and writes
  /// the record that both ends then have.
  virtual absl::Status EncodeDelta(const DeviceSample& sample,
                                   const RandomKey& key, uint8_t* payload,
                                   cuda::EncodeOutcome* outcome,
                                   DeviceStream stream) = 0;

  /// The receiver: writes the next record to `after` and its values to
  /// `values`. `is_delta` is what the outcome was. INVALID_ARGUMENT for a delta
  /// without a record before it.
  virtual absl::Status DecodeDelta(const DevicePayload& payload, bool is_delta,
                                   const DeviceSample& state, float* values,
                                   DeviceStream stream) = 0;

  /// Of ef(...): encodes values plus residuals and writes what is left over.
  virtual absl::Status EncodeFeedback(const DeviceSample& sample,
                                      const RandomKey& key, uint8_t* payload,
                                      cuda::EncodeOutcome* outcome,
                                      DeviceStream stream) = 0;
};

/// For at most `max_elements` values in a call, with scratch memory on the
/// current GPU. INVALID_ARGUMENT as ParseBoundarySpec; UNIMPLEMENTED, naming
/// the codec, where it has no kernel; errors of MakeCudaMemory.
absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeDeviceCodec(
    absl::string_view text, int64_t max_elements);
/// The same with scratch memory of the caller's. UNIMPLEMENTED also in a build
/// without --config=cuda.
absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeDeviceCodecIn(
    std::unique_ptr<DeviceMemory> memory, absl::string_view text,
    int64_t max_elements);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_DEVICE_CODEC_H_
