#include "worker/saved_activations/device_packer.h"

#include <algorithm>
#include <unordered_map>

#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"
#include "ATen/ops/zeros.h"
#include "base/status_macros.h"
#include "compression/cuda/message.h"
#include "worker/saved_activations/bit_mask.h"
#include "worker/saved_activations/device_policy.h"

namespace deltapipe {

/// Packed bytes on their way to host memory and back.
struct PackedTransfer {
  DeviceStreams::Done is_out;
  /// On the device again, for the reads after Prefetch.
  at::Tensor kept;
  at::Tensor mask;
  DeviceStreams::Done is_back;
};

namespace {

using Form = PackedTensor::Form;

constexpr int kNumWords = 16;
// Places in them.
constexpr int kFlag = 0;
constexpr int kProblem = 2;
constexpr int kOutcome = 4;

/// Scratch memory of codecs, from the allocator that all else is from.
class CachedMemory final : public DeviceMemory {
 public:
  explicit CachedMemory(at::Device device) : device_(device) {}

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    at::Tensor memory =
        at::zeros({std::max<int64_t>(bytes, 1)},
                  at::TensorOptions().dtype(at::kByte).device(device_));
    void* const start = memory.data_ptr();
    memory_[start] = std::move(memory);
    return start;
  }
  void Free(void* memory) override { memory_.erase(memory); }
  absl::Status CopyToDevice(const void* from, int64_t bytes,
                            void* to) override {
    return Copy(from, at::kCPU, bytes, to, device_);
  }
  absl::Status CopyWithinDevice(const void* from, int64_t bytes,
                                void* to) override {
    return Copy(from, device_, bytes, to, device_);
  }
  absl::Status CopyFromDevice(const void* from, int64_t bytes,
                              void* to) override {
    return Copy(from, device_, bytes, to, at::kCPU);
  }

 private:
  static absl::Status Copy(const void* from, at::Device from_device,
                           int64_t bytes, void* to, at::Device to_device) {
    const auto bytes_at = [bytes](void* start, at::Device device) {
      return at::from_blob(start, {bytes},
                           at::TensorOptions().dtype(at::kByte).device(device));
    };
    bytes_at(to, to_device)
        .copy_(bytes_at(const_cast<void*>(from), from_device));
    return absl::OkStatus();
  }

  const at::Device device_;
  std::unordered_map<void*, at::Tensor> memory_;
};

const float* FloatsAt(const at::Tensor& flat) {
  return flat.const_data_ptr<float>();
}

}  // namespace

at::Tensor DevicePacker::Empty(int64_t count, at::ScalarType type) const {
  return at::empty({count}, at::TensorOptions().dtype(type).device(device()));
}

uint32_t* DevicePacker::Words() {
  if (!words_.defined()) {
    words_ = at::zeros({kNumWords},
                       at::TensorOptions().dtype(at::kInt).device(device()));
  }
  return reinterpret_cast<uint32_t*>(words_.data_ptr<int32_t>());
}

absl::StatusOr<DeviceCodec*> DevicePacker::CodecFor(const Codec& codec,
                                                    int64_t count) {
  constexpr int64_t kSmallest = 1 << 16;
  int64_t most = kSmallest;
  while (most < count) most *= 2;
  const std::string text = codec.text();
  std::unique_ptr<DeviceCodec>& made = codecs_[{text, most}];
  if (made == nullptr) {
    DP_RETURN_IF_ERROR(CheckDeviceCodec(codec));
    DP_ASSIGN_OR_RETURN(
        made, pack_device_.make_codec(std::make_unique<CachedMemory>(device()),
                                      text, most));
  }
  return made.get();
}

void DevicePacker::NoteScratch(int64_t bytes) {
  scratch_peak_ = std::max(scratch_peak_, bytes);
}

absl::StatusOr<std::optional<PackedTensor>> DevicePacker::PackExactly(
    const at::Tensor& flat) {
  if (flat.scalar_type() != at::kBool) return std::nullopt;
  const DeviceStream stream = streams_.Join();
  const at::Tensor bools = flat.contiguous();
  PackedTensor packed = PackedTensor::Of(Form::kBits, flat);
  packed.kept = Empty(BitMaskBytes(flat.numel()), at::kByte);
  DP_RETURN_IF_ERROR(pack_device_.bits->PackBits(
      reinterpret_cast<const uint8_t*>(bools.const_data_ptr<bool>()),
      flat.numel(), packed.kept.data_ptr<uint8_t>(), stream));
  return packed;
}

absl::StatusOr<DevicePacker::Outcome> DevicePacker::PackWithCodec(
    const at::Tensor& flat, const CodecUse& use, PackedTensor* packed) {
  if (use.codec == nullptr) return PackAsItIs(flat, use, packed);
  *packed = PackedTensor::Of(Form::kCodec, flat);
  packed->codec = use.codec;
  const int64_t count = flat.numel();
  const int64_t size = use.codec->MaxPayloadBytes(count);
  const int64_t mask_bytes = use.keeps_zeros ? BitMaskBytes(count) : 0;
  DP_ASSIGN_OR_RETURN(DeviceCodec* const codec, CodecFor(*use.codec, count));
  if (size + mask_bytes >= static_cast<int64_t>(flat.nbytes())) {
    return PackAsItIs(flat, use, packed);
  }
  const DeviceStream stream = streams_.Join();
  DeviceBits* const bits = pack_device_.bits.get();
  const at::Tensor floats = flat.to(at::kFloat);
  if (use.is_scratch || floats.const_data_ptr() != flat.const_data_ptr()) {
    NoteScratch(static_cast<int64_t>(floats.nbytes()));
  }
  uint32_t* const words = Words();
  DP_RETURN_IF_ERROR(
      bits->CountIfNotFinite(FloatsAt(floats), count, words + kFlag, stream));
  packed->kept = Empty(size, at::kByte);
  DP_RETURN_IF_ERROR(codec->Encode(
      FloatsAt(floats), count, use.key, packed->kept.data_ptr<uint8_t>(),
      reinterpret_cast<cuda::EncodeOutcome*>(words + kOutcome), stream));
  if (use.keeps_zeros) {
    packed->mask = Empty(mask_bytes, at::kByte);
    DP_RETURN_IF_ERROR(bits->PackNonzeros(
        FloatsAt(floats), count, packed->mask.data_ptr<uint8_t>(), stream));
  }
  if (use.is_offloaded) MoveToHost(packed);
  return Outcome::kPacked;
}

DevicePacker::Outcome DevicePacker::PackAsItIs(const at::Tensor& flat,
                                               const CodecUse& use,
                                               PackedTensor* packed) {
  if (!use.is_offloaded) return Outcome::kNotSmaller;
  streams_.Join();
  *packed = PackedTensor::Of(Form::kCopy, flat);
  // It may be changed in place before it is in host memory.
  packed->kept = (use.is_scratch ? flat : flat.clone()).view(at::kByte);
  NoteScratch(packed->kept.numel());
  MoveToHost(packed);
  return Outcome::kPacked;
}

void DevicePacker::MoveToHost(PackedTensor* packed) {
  auto transfer = std::make_shared<PackedTransfer>();
  const bool is_pinned = !device().is_cpu();
  const auto move = [&](at::Tensor* bytes) {
    if (!bytes->defined()) return;
    at::Tensor host = at::empty(
        {bytes->numel()},
        at::TensorOptions().dtype(at::kByte).pinned_memory(is_pinned));
    host.copy_(*bytes, /*non_blocking=*/true);
    streams_.KeepUntilDone(*bytes);
    *bytes = std::move(host);
  };
  transfer->is_out = streams_.Outward([&] {
    move(&packed->kept);
    move(&packed->mask);
  });
  packed->transfer = std::move(transfer);
}

void DevicePacker::Prefetch(const PackedTensor& packed) {
  PackedTransfer* const transfer = packed.transfer.get();
  if (transfer == nullptr || transfer->kept.defined()) return;
  const auto fetch = [&](const at::Tensor& host) {
    if (!host.defined()) return at::Tensor();
    at::Tensor bytes = Empty(host.numel(), at::kByte);
    bytes.copy_(host, /*non_blocking=*/true);
    return bytes;
  };
  transfer->is_back = streams_.Inward(transfer->is_out, [&] {
    transfer->kept = fetch(packed.kept);
    transfer->mask = fetch(packed.mask);
  });
}

void DevicePacker::DropFetched(const PackedTensor& packed) {
  PackedTransfer* const transfer = packed.transfer.get();
  if (transfer == nullptr) return;
  // The memory is of the stream that the copy is on.
  transfer->kept = at::Tensor();
  transfer->mask = at::Tensor();
}

DevicePacker::OnDevice DevicePacker::Fetched(const PackedTensor& packed) {
  if (packed.transfer == nullptr) return {packed.kept, packed.mask};
  Prefetch(packed);
  streams_.WaitFor(packed.transfer->is_back);
  // A graph that is kept for another pass fetches once more.
  return {std::exchange(packed.transfer->kept, at::Tensor()),
          std::exchange(packed.transfer->mask, at::Tensor())};
}

absl::StatusOr<at::Tensor> DevicePacker::UnpackFloats(
    const PackedTensor& packed) {
  const DeviceStream stream = streams_.Join();
  const auto [kept, mask] = Fetched(packed);
  const int64_t count = packed.num_elements;
  DP_ASSIGN_OR_RETURN(DeviceCodec* const codec, CodecFor(*packed.codec, count));
  const at::Tensor values = Empty(count, at::kFloat);
  DP_RETURN_IF_ERROR(codec->Decode(
      {kept.const_data_ptr<uint8_t>(), kept.numel(), Words() + kProblem},
      values.data_ptr<float>(), count, stream));
  streams_.KeepUntilDone(kept);
  if (mask.defined()) {
    DP_RETURN_IF_ERROR(
        pack_device_.bits->RestoreZeros(mask.const_data_ptr<uint8_t>(), count,
                                        values.data_ptr<float>(), stream));
    streams_.KeepUntilDone(mask);
  }
  const at::Tensor flat = values.to(packed.type);
  const bool is_copy = flat.const_data_ptr() != values.const_data_ptr();
  NoteScratch((is_copy ? static_cast<int64_t>(values.nbytes()) : 0) +
              (packed.transfer != nullptr ? packed.host_bytes() : 0));
  return flat;
}

absl::StatusOr<at::Tensor> DevicePacker::Unpack(const PackedTensor& packed) {
  switch (packed.form) {
    case Form::kCopy: {
      if (packed.transfer == nullptr) return packed.kept;
      streams_.Join();
      const at::Tensor bytes = Fetched(packed).kept;
      streams_.KeepUntilDone(bytes);
      return bytes.view(packed.type);
    }
    case Form::kBits: {
      const DeviceStream stream = streams_.Join();
      const at::Tensor flat = Empty(packed.num_elements, at::kBool);
      DP_RETURN_IF_ERROR(pack_device_.bits->UnpackBits(
          packed.kept.const_data_ptr<uint8_t>(), packed.num_elements,
          reinterpret_cast<uint8_t*>(flat.data_ptr<bool>()), stream));
      streams_.KeepUntilDone(packed.kept);
      return flat;
    }
    case Form::kCodec:
      return UnpackFloats(packed);
    case Form::kExact:
    case Form::kNarrow:
    case Form::kHeld:
      break;
  }
  return absl::InternalError("not a form that is packed on a device");
}

void DevicePacker::Share(const at::Tensor& unpacked) {
  streams_.Join();
  streams_.KeepUntilDone(unpacked);
}

int64_t DevicePacker::TakeScratchPeak() {
  return std::exchange(scratch_peak_, 0);
}

absl::StatusOr<int64_t> DevicePacker::TakeNotFinite() {
  if (!words_.defined()) return 0;
  streams_.Join();
  const at::Tensor words = words_.to(at::kCPU, at::kInt, false, /*copy=*/true);
  words_.zero_();
  const int32_t* const values = words.const_data_ptr<int32_t>();
  if (values[kProblem] != 0) {
    return absl::DataLossError(
        "a packed payload on the device was changed: its bytes are none that "
        "its codec writes");
  }
  return values[kFlag + 1];
}

}  // namespace deltapipe
