// HostPacker: packs tensors in host memory, with any codec.
//
// What it packs carries a checksum (XXH3 of payload and mask), so that memory
// that was overwritten meanwhile is an error and no wrong gradient: DATA_LOSS
// of Unpack.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_HOST_PACKER_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_HOST_PACKER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/saved_activations/packed_tensor.h"

namespace deltapipe {

class HostPacker final : public TensorPacker {
 public:
  at::Device device() const override { return at::kCPU; }
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
  /// The codec that keeps zeros by itself; null if a mask must.
  std::shared_ptr<const Codec> WithZeros(
      const std::shared_ptr<const Codec>& codec);
  absl::StatusOr<at::Tensor> UnpackFloats(const PackedTensor& packed);

  std::map<std::string, std::shared_ptr<const Codec>> zero_keepers_;
  std::vector<uint8_t> scratch_;
  int64_t scratch_peak_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_HOST_PACKER_H_
