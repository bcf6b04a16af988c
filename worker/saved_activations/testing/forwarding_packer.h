// ForwardingPacker: a DevicePacker whose kernels the host runs, for tests that
// watch some of its calls.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TESTING_FORWARDING_PACKER_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TESTING_FORWARDING_PACKER_H_

#include <cstdint>
#include <optional>

#include "worker/saved_activations/device_packer.h"
#include "worker/saved_activations/testing/host_pack_device.h"

namespace deltapipe {

class ForwardingPacker : public TensorPacker {
 public:
  at::Device device() const override { return packer_.device(); }
  absl::StatusOr<std::optional<PackedTensor>> PackExactly(
      const at::Tensor& flat) override {
    return packer_.PackExactly(flat);
  }
  absl::StatusOr<Outcome> PackWithCodec(const at::Tensor& flat,
                                        const CodecUse& use,
                                        PackedTensor* packed) override {
    return packer_.PackWithCodec(flat, use, packed);
  }
  void Prefetch(const PackedTensor& packed) override {
    packer_.Prefetch(packed);
  }
  void DropFetched(const PackedTensor& packed) override {
    packer_.DropFetched(packed);
  }
  absl::StatusOr<at::Tensor> Unpack(const PackedTensor& packed) override {
    return packer_.Unpack(packed);
  }
  void Share(const at::Tensor& unpacked) override { packer_.Share(unpacked); }
  int64_t TakeScratchPeak() override { return packer_.TakeScratchPeak(); }
  absl::StatusOr<int64_t> TakeNotFinite() override {
    return packer_.TakeNotFinite();
  }

 private:
  DevicePacker packer_{MakeHostPackDevice()};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TESTING_FORWARDING_PACKER_H_
