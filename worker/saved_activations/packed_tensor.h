// PackedTensor: what is kept of the elements of one saved tensor, and
// TensorPacker, which packs and unpacks them where they are: on the host
// (host_packer.h) or on a device (device_packer.h).
//
// Knows elements in their order in memory and nothing of where they come from:
// views, aliases, accounts and hooks are the stash's (activation_stash.h).
//
//   DP_ASSIGN_OR_RETURN(auto packed, packer->PackExactly(flat_bools));
//   DP_ASSIGN_OR_RETURN(at::Tensor flat, packer->Unpack(*packed));
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACKED_TENSOR_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACKED_TENSOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/philox.h"
#include "compression/codec.h"

namespace deltapipe {

/// Of a packer (device_packer.h).
struct PackedTransfer;

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
  /// HostPacker's, of `kept` and `mask` where they are packed.
  uint64_t checksum = 0;
  std::shared_ptr<const Codec> codec;
  std::function<absl::Status(absl::Span<float>)> read;  // kHeld

  /// Of an offloaded kCodec or kCopy, whose `kept` (bytes) and `mask` are in
  /// host memory.
  std::shared_ptr<PackedTransfer> transfer;

  /// Without what is kept.
  static PackedTensor Of(Form form, const at::Tensor& flat);

  /// Where the tensor was: of `kept` and `mask`; of kExact the whole storage.
  int64_t stored_bytes() const;
  /// In host memory, of what was offloaded.
  int64_t host_bytes() const;
};

/// kCopy of a one-dimensional tensor.
PackedTensor CopyOf(const at::Tensor& flat);

/// One thread at a time. Throws what LibTorch throws. Packers of devices put
/// work on the current stream and do not wait for it, but where it is said.
class TensorPacker {
 public:
  virtual ~TensorPacker() = default;

  /// Where tensors must be to be packed.
  virtual at::Device device() const = 0;

  /// Of bools (kBits) and integers (kNarrow), one-dimensional as `flat` is
  /// below. Nothing if they need all their bytes, or if that cannot be known.
  virtual absl::StatusOr<std::optional<PackedTensor>> PackExactly(
      const at::Tensor& flat) = 0;

  struct CodecUse {
    /// Null: the elements as they are, which are only worth it if offloaded.
    std::shared_ptr<const Codec> codec;
    RandomKey key;
    /// Zeros and signs are restored exactly: values are 0 or more.
    bool keeps_zeros = false;
    /// Of codecs that have one; nobody else uses it during the call.
    std::vector<float>* memory = nullptr;
    /// To host memory. Not for packers of the host.
    bool is_offloaded = false;
    /// `flat` is a copy made for this call, which counts as scratch memory.
    bool is_scratch = false;
  };
  enum class Outcome {
    kPacked,
    kNotFinite,   // there are infinities or NaN: nothing was packed
    kNotSmaller,  // than the elements as they are: nothing was packed
  };
  /// `flat` has 16- or 32-bit floats. `packed->codec` is the codec that was
  /// tried, whatever the outcome: `use.codec`, or one around it. What does not
  /// get smaller is offloaded as it is (kCopy, no codec). Errors are the
  /// codec's; UNIMPLEMENTED if the device has none.
  virtual absl::StatusOr<Outcome> PackWithCodec(const at::Tensor& flat,
                                                const CodecUse& use,
                                                PackedTensor* packed) = 0;

  /// Begins to bring back what was offloaded.
  virtual void Prefetch(const PackedTensor& packed) = 0;
  /// Gives back what Prefetch brought and nobody has read: it is in host memory
  /// still.
  virtual void DropFetched(const PackedTensor& packed) = 0;

  /// The elements, one-dimensional, of their type; of kCopy `kept` itself. Not
  /// for kExact. Errors of the codec, or of `read`.
  virtual absl::StatusOr<at::Tensor> Unpack(const PackedTensor& packed) = 0;

  /// What Unpack gave is used once more, perhaps on another stream: that one
  /// waits for what it needs, and the memory is not given back before.
  virtual void Share(const at::Tensor& unpacked) = 0;

  /// The largest memory that one call needed beside its argument and result,
  /// since the last time.
  virtual int64_t TakeScratchPeak() = 0;

  /// How many tensors with values that are not finite were packed since the
  /// last time, where PackWithCodec did not say so. Waits for the device.
  /// DATA_LOSS if a payload could not be read.
  virtual absl::StatusOr<int64_t> TakeNotFinite() = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACKED_TENSOR_H_
