// Bytes that own themselves: move-only, aligned to 64, not initialised. What
// channels hand out and frames are built in.
#ifndef DELTAPIPE_BASE_BUFFER_H_
#define DELTAPIPE_BASE_BUFFER_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "absl/types/span.h"

namespace deltapipe {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) : data_(Allocate(size)), size_(size) {}
  static Buffer CopyOf(absl::Span<const uint8_t> bytes) {
    Buffer buffer(static_cast<int64_t>(bytes.size()));
    if (!bytes.empty()) std::memcpy(buffer.data(), bytes.data(), bytes.size());
    return buffer;
  }

  Buffer(Buffer&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  absl::Span<uint8_t> span() {
    return absl::MakeSpan(data_.get(), static_cast<size_t>(size_));
  }
  absl::Span<const uint8_t> span() const {
    return absl::MakeConstSpan(data_.get(), static_cast<size_t>(size_));
  }
  /// Makes the buffer shorter without moving its bytes.
  void Truncate(int64_t size) { size_ = size < size_ ? size : size_; }

 private:
  /// Throws bad_alloc, as operator new does, when there is no memory.
  static uint8_t* Allocate(int64_t size) {
    if (size == 0) return nullptr;
    void* data = nullptr;
    if (size > 0 && size <= INT64_MAX - 63) {
      data = std::aligned_alloc(64, (static_cast<size_t>(size) + 63) / 64 * 64);
    }
    if (data == nullptr) throw std::bad_alloc();
    return static_cast<uint8_t*>(data);
  }
  struct Free {
    void operator()(uint8_t* data) const { std::free(data); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  int64_t size_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_BUFFER_H_
