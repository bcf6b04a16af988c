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
    DP_ASSIGN_OR_RETURN(const auto codec, make_(text(), count));
    DP_ASSIGN_OR_RETURN(const DeviceBytes values,
                        DeviceBytes::Create(memory_.get(), 4 * count));
    DP_RETURN_IF_ERROR(
        memory_->CopyToDevice(in.data(), 4 * count, values.as<float>()));
    std::vector<uint8_t> guarded(size + 2 * kGuardBytes, kGuard);
    DP_ASSIGN_OR_RETURN(const DeviceBytes payload,
                        DeviceBytes::Create(memory_.get(), guarded.size()));
    DP_RETURN_IF_ERROR(memory_->CopyToDevice(guarded.data(), guarded.size(),
                                             payload.as<uint8_t>()));
    DP_ASSIGN_OR_RETURN(
        const DeviceBytes outcome,
        DeviceBytes::Create(memory_.get(), sizeof(cuda::EncodeOutcome)));
    DP_RETURN_IF_ERROR(codec->Encode(
        values.as<float>(), count, key, payload.as<uint8_t>() + kGuardBytes,
        outcome.as<cuda::EncodeOutcome>(), nullptr));
    cuda::EncodeOutcome result;
    DP_RETURN_IF_ERROR(memory_->CopyFromDevice(outcome.as<uint8_t>(),
                                               sizeof(result), &result));
    DP_RETURN_IF_ERROR(memory_->CopyFromDevice(payload.as<uint8_t>(),
                                               guarded.size(), guarded.data()));
    const auto is_guard = [](uint8_t byte) { return byte == kGuard; };
    if (!std::all_of(guarded.begin(), guarded.begin() + kGuardBytes,
                     is_guard) ||
        !std::all_of(guarded.end() - kGuardBytes, guarded.end(), is_guard)) {
      return absl::InternalError("bytes beside the payload were written");
    }
    std::copy_n(guarded.begin() + kGuardBytes, result.payload_bytes,
                out.begin());
    return result.payload_bytes;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t count = out.size(), size = payload.size();
    DP_ASSIGN_OR_RETURN(const auto codec, make_(text(), count));
    DP_ASSIGN_OR_RETURN(const DeviceBytes bytes,
                        DeviceBytes::Create(memory_.get(), size + 1));
    DP_RETURN_IF_ERROR(
        memory_->CopyToDevice(payload.data(), size, bytes.as<uint8_t>() + 1));
    DP_ASSIGN_OR_RETURN(const DeviceBytes values,
                        DeviceBytes::Create(memory_.get(), 4 * count));
    DP_ASSIGN_OR_RETURN(const DeviceBytes problem,
                        DeviceBytes::Create(memory_.get(), sizeof(uint32_t)));
    DP_RETURN_IF_ERROR(
        codec->Decode({bytes.as<uint8_t>() + 1, size, problem.as<uint32_t>()},
                      values.as<float>(), count, nullptr));
    uint32_t bits = 0;
    DP_RETURN_IF_ERROR(
        memory_->CopyFromDevice(problem.as<uint32_t>(), sizeof(bits), &bits));
    if (bits != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text(), " failed: problem ", bits));
    }
    return memory_->CopyFromDevice(values.as<float>(), 4 * count, out.data());
  }

 private:
  const std::unique_ptr<Codec> host_;
  const DeviceCodecMaker make_;
  // Shared with the other codecs of a test.
  const std::shared_ptr<DeviceMemory> memory_;
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
