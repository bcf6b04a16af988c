// PackedTensor: what is kept of the elements of one saved tensor, and
// TensorPacker, which packs and unpacks them.
//
// Knows elements in their order in memory and nothing of where they come from:
// views, aliases, accounts and hooks are the stash's (activation_stash.h).
//
//   TensorPacker packer;
//   PackedTensor packed = packer.PackBits(flat_bools);
//   DP_ASSIGN_OR_RETURN(at::Tensor flat, packer.Unpack(packed));
//
// One thread at a time. Throws what LibTorch throws.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACKED_TENSOR_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACKED_TENSOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/philox.h"
#include "compression/codec.h"

namespace deltapipe {

struct PackedTensor {
  enum class Form {
    kExact,   // the storage is kept
    kCopy,    // its elements, in memory order
    kCodec,   // a codec's payload, after a mask where zeros are kept
    kBits,    // one bit per bool
    kNarrow,  // integers of fewer bytes
    kHeld,    // nothing: an input that somebody keeps anyway
  };

  Form form = Form::kExact;
  /// Of the elements as they were.
  at::ScalarType type = at::kFloat;
  int64_t num_elements = 0;
  at::Tensor kept;  // kExact: on the storage; else one-dimensional
  at::Tensor mask;  // kCodec: which elements are not zero
  std::shared_ptr<const Codec> codec;
  std::function<absl::Status(absl::Span<float>)> read;  // kHeld

  /// Of `kept` and `mask`; of kExact the whole storage.
  int64_t stored_bytes() const;
};

class TensorPacker {
 public:
  TensorPacker() = default;
  TensorPacker(const TensorPacker&) = delete;
  TensorPacker& operator=(const TensorPacker&) = delete;

  /// `flat` is one-dimensional everywhere below.
  PackedTensor Copy(const at::Tensor& flat);
  /// Of bools.
  PackedTensor PackBits(const at::Tensor& flat);
  /// Of integers; nothing if they need all their bytes.
  std::optional<PackedTensor> PackIntegers(const at::Tensor& flat);

  struct CodecUse {
    std::shared_ptr<const Codec> codec;
    RandomKey key;
    /// Zeros and signs are restored exactly: values are 0 or more.
    bool keeps_zeros = false;
    /// Of codecs that have one; nobody else uses it during the call.
    std::vector<float>* memory = nullptr;
    /// `flat` is a copy made for this call, which counts as scratch memory.
    bool is_scratch = false;
  };
  enum class Outcome {
    kPacked,
    kNotFinite,   // there are infinities or NaN: nothing was packed
    kNotSmaller,  // than the elements as they are: nothing was packed
  };
  /// `flat` has 16- or 32-bit floats. `packed->codec` is the codec that was
  /// tried, whatever the outcome: `use.codec`, or one around it. Errors are the
  /// codec's.
  absl::StatusOr<Outcome> PackWithCodec(const at::Tensor& flat,
                                        const CodecUse& use,
                                        PackedTensor* packed);

  /// The elements, one-dimensional, of their type; of kCopy `kept` itself. Not
  /// for kExact. Errors of the codec, or of `read`.
  absl::StatusOr<at::Tensor> Unpack(const PackedTensor& packed);

  /// The largest memory that one call needed beside its argument and result,
  /// since the last time.
  int64_t TakeScratchPeak();

 private:
  /// The codec that keeps zeros by itself; null if a mask must.
  std::shared_ptr<const Codec> WithZeros(
      const std::shared_ptr<const Codec>& codec);
  absl::StatusOr<at::Tensor> UnpackFloats(const PackedTensor& packed);

  std::map<std::string, std::shared_ptr<const Codec>> zero_keepers_;
  std::vector<uint8_t> scratch_;
  int64_t scratch_peak_ = 0;
};

/// The elements of a flat CPU tensor of floats.
absl::Span<float> FloatsOf(const at::Tensor& flat);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACKED_TENSOR_H_
