// A Codec whose work a DeviceCodec does: values and payloads are carried to the
// device and back. So that what tests codecs also tests kernels.
#ifndef DELTAPIPE_COMPRESSION_CUDA_TESTING_CARRIED_CODEC_H_
#define DELTAPIPE_COMPRESSION_CUDA_TESTING_CARRIED_CODEC_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compression/codec.h"
#include "compression/cuda/device_codec.h"
#include "compression/cuda/device_memory.h"

namespace deltapipe {

/// Memory of a device that frees itself.
class DeviceBytes {
 public:
  static absl::StatusOr<DeviceBytes> Create(DeviceMemory* memory,
                                            int64_t bytes);
  DeviceBytes(DeviceBytes&& other) noexcept
      : memory_(other.memory_), data_(other.data_) {
    other.data_ = nullptr;
  }
  DeviceBytes& operator=(DeviceBytes&&) = delete;
  ~DeviceBytes() {
    if (data_ != nullptr) memory_->Free(data_);
  }
  void* get() const { return data_; }
  template <class Value>
  Value* as() const {
    return static_cast<Value*>(data_);
  }

 private:
  DeviceBytes(DeviceMemory* memory, void* data)
      : memory_(memory), data_(data) {}

  DeviceMemory* memory_;
  void* data_;
};

using DeviceCodecMaker = absl::StatusOr<std::unique_ptr<DeviceCodec>> (*)(
    absl::string_view text, int64_t max_elements);

/// Makes the codec that `text` names, with what `make` makes at work. Payloads
/// lie at an odd address of the device, with guards around them: a write beside
/// them is INTERNAL. Traits and bounds are those of the host's codec. Errors of
/// MakeCodec and of `make`. Unlike others it is for one thread at a time.
absl::StatusOr<std::unique_ptr<Codec>> MakeCarriedCodec(
    absl::string_view text, DeviceCodecMaker make,
    std::shared_ptr<DeviceMemory> memory);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_TESTING_CARRIED_CODEC_H_
