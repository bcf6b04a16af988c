#include "compression/cuda/testing/carried_codec.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/payload_checks.h"

namespace deltapipe {
namespace {

constexpr int64_t kGuardBytes = 33;
constexpr uint8_t kGuard = 0x5A;

class CarriedCodec final : public Codec {
 public:
  CarriedCodec(std::unique_ptr<Codec> host, DeviceCodecMaker make,
               std::shared_ptr<DeviceMemory> memory)
      : host_(std::move(host)), make_(make), memory_(std::move(memory)) {}

  std::string text() const override { return host_->text(); }
  int64_t MaxPayloadBytes(int64_t count) const override {
    return host_->MaxPayloadBytes(count);
  }
  Traits traits() const override { return host_->traits(); }
  double ErrorBound(double block_max) const override {
    return host_->ErrorBound(block_max);
  }
  double TensorErrorBound(double tensor_max, int64_t count) const override {
    return host_->TensorErrorBound(tensor_max, count);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    const int64_t count = in.size(), size = MaxPayloadBytes(count);
    DP_RETURN_IF_ERROR(CheckRoom(text(), size, out.size()));
    DP_ASSIGN_OR_RETURN(const Device* const device, DeviceFor(count, size));
    DP_RETURN_IF_ERROR(
        memory_->CopyToDevice(in.data(), 4 * count, device->values.get()));
    std::vector<uint8_t> guarded(size + 2 * kGuardBytes, kGuard);
    uint8_t* const payload = device->payload.as<uint8_t>();
    DP_RETURN_IF_ERROR(
        memory_->CopyToDevice(guarded.data(), guarded.size(), payload));
    auto* const outcome = device->words.as<cuda::EncodeOutcome>();
    DP_RETURN_IF_ERROR(device->codec->Encode(device->values.as<float>(), count,
                                             key, payload + kGuardBytes,
                                             outcome, nullptr));
    cuda::EncodeOutcome result;
    DP_RETURN_IF_ERROR(
        memory_->CopyFromDevice(outcome, sizeof(result), &result));
    DP_RETURN_IF_ERROR(
        memory_->CopyFromDevice(payload, guarded.size(), guarded.data()));
    const auto is_guard = [](uint8_t byte) { return byte == kGuard; };
    if (!std::all_of(guarded.begin(), guarded.begin() + kGuardBytes,
                     is_guard) ||
        !std::all_of(guarded.end() - kGuardBytes, guarded.end(), is_guard)) {
      return absl::InternalError("bytes beside the payload were written");
    }
    if (result.payload_bytes < 0 || result.payload_bytes > size) {
      return absl::InternalError(absl::StrCat("the outcome is ",
                                              result.payload_bytes,
                                              " bytes, expected 0..", size));
    }
    std::copy_n(guarded.begin() + kGuardBytes, result.payload_bytes,
                out.begin());
    return result.payload_bytes;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t count = out.size(), size = payload.size();
    DP_ASSIGN_OR_RETURN(const Device* const device, DeviceFor(count, size));
    uint8_t* const bytes = device->payload.as<uint8_t>() + kGuardBytes;
    auto* const problem = device->words.as<uint32_t>();
    uint32_t bits = 0;
    DP_RETURN_IF_ERROR(memory_->CopyToDevice(payload.data(), size, bytes));
    DP_RETURN_IF_ERROR(memory_->CopyToDevice(&bits, sizeof(bits), problem));
    DP_RETURN_IF_ERROR(device->codec->Decode(
        {bytes, size, problem}, device->values.as<float>(), count, nullptr));
    DP_RETURN_IF_ERROR(memory_->CopyFromDevice(problem, sizeof(bits), &bits));
    if (bits != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text(), " failed: problem ", bits));
    }
    return memory_->CopyFromDevice(device->values.get(), 4 * count, out.data());
  }

 private:
  struct Device {
    int64_t max_elements;
    int64_t max_bytes;
    std::unique_ptr<DeviceCodec> codec;
    DeviceBytes values;
    DeviceBytes payload;  // with guards
    DeviceBytes words;
  };

  // That of the last call, if it has room.
  absl::StatusOr<const Device*> DeviceFor(int64_t count, int64_t bytes) const {
    if (device_ != nullptr && device_->max_elements >= count &&
        device_->max_bytes >= bytes) {
      return device_.get();
    }
    device_.reset();
    DP_ASSIGN_OR_RETURN(auto codec, make_(text(), count));
    DP_ASSIGN_OR_RETURN(auto values,
                        DeviceBytes::Create(memory_.get(), 4 * count));
    DP_ASSIGN_OR_RETURN(
        auto payload,
        DeviceBytes::Create(memory_.get(), bytes + 2 * kGuardBytes));
    DP_ASSIGN_OR_RETURN(
        auto words,
        DeviceBytes::Create(memory_.get(), sizeof(cuda::EncodeOutcome)));
    device_ = std::unique_ptr<Device>(
        new Device{count, bytes, std::move(codec), std::move(values),
                   std::move(payload), std::move(words)});
    return device_.get();
  }

  const std::unique_ptr<Codec> host_;
  const DeviceCodecMaker make_;
  // Shared with the other codecs of a test.
  const std::shared_ptr<DeviceMemory> memory_;
  mutable std::unique_ptr<Device> device_;
};

}  // namespace

absl::StatusOr<DeviceBytes> DeviceBytes::Create(DeviceMemory* memory,
                                                int64_t bytes) {
  DP_ASSIGN_OR_RETURN(void* const data,
                      memory->Allocate(std::max<int64_t>(bytes, 1)));
  return DeviceBytes(memory, data);
}

absl::StatusOr<std::unique_ptr<Codec>> MakeCarriedCodec(
    absl::string_view text, DeviceCodecMaker make,
    std::shared_ptr<DeviceMemory> memory) {
  DP_ASSIGN_OR_RETURN(std::unique_ptr<Codec> host, MakeCodec(text));
  DP_RETURN_IF_ERROR(make(text, 0).status());
  return std::unique_ptr<Codec>(
      new CarriedCodec(std::move(host), make, std::move(memory)));
}

}  // namespace deltapipe
