// DevicePacker: packs tensors where they are, on a device, by its kernels.
//
// Puts work on the current stream (on the GPU, that of the node that saves or
// reads) and waits for nothing: sizes are known beforehand, integers stay as
// they are, since their range is not known, and tensors with values that are
// not finite are packed all the same and counted on the device. Their blocks
// come back as NaN, so that the step's gradient is not finite either, and the
// step is left out. A relu's result keeps its zeros by a bit per element beside
// the codes of all.
//
// Offloaded payloads are copied to pinned host memory on a stream beside, the
// device's memory being given back when the copy is done, and come back in
// Prefetch or else in Unpack. Memory of the device and pinned memory are those
// of LibTorch's caching allocators, which use them again.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_PACKER_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_PACKER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "worker/saved_activations/device_streams.h"
#include "worker/saved_activations/pack_device.h"
#include "worker/saved_activations/packed_tensor.h"

namespace deltapipe {

class DevicePacker final : public TensorPacker {
 public:
  explicit DevicePacker(PackDevice device)
      : pack_device_(std::move(device)), streams_(pack_device_.device) {}

  at::Device device() const override { return pack_device_.device; }
  absl::StatusOr<std::optional<PackedTensor>> PackExactly(
      const at::Tensor& flat) override;
  absl::StatusOr<Outcome> PackWithCodec(const at::Tensor& flat,
                                        const CodecUse& use,
                                        PackedTensor* packed) override;
  void Prefetch(const PackedTensor& packed) override;
  void DropFetched(const PackedTensor& packed) override;
  absl::StatusOr<at::Tensor> Unpack(const PackedTensor& packed) override;
  void Share(const at::Tensor& unpacked) override;
  int64_t TakeScratchPeak() override;
  absl::StatusOr<int64_t> TakeNotFinite() override;

 private:
  at::Tensor Empty(int64_t count, at::ScalarType type) const;
  /// Words on the device: a flag and a count of tensors that are not finite,
  /// the problem of payloads, and the outcome of an encoding.
  uint32_t* Words();
  absl::StatusOr<DeviceCodec*> CodecFor(const Codec& codec, int64_t count);
  /// In host memory, if `use` says so.
  Outcome PackAsItIs(const at::Tensor& flat, const CodecUse& use,
                     PackedTensor* packed);
  void MoveToHost(PackedTensor* packed);
  /// What is kept, on the device, once the current stream may read it.
  struct OnDevice {
    at::Tensor kept;
    at::Tensor mask;
  };
  OnDevice Fetched(const PackedTensor& packed);
  absl::StatusOr<at::Tensor> UnpackFloats(const PackedTensor& packed);
  void NoteScratch(int64_t bytes);

  const PackDevice pack_device_;
  DeviceStreams streams_;
  /// By text and the largest number of values, a power of two.
  std::map<std::pair<std::string, int64_t>, std::unique_ptr<DeviceCodec>>
      codecs_;
  at::Tensor words_;
  int64_t scratch_peak_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_PACKER_H_
