// Bytes that own themselves, unless they are borrowed: move-only, aligned to
// 64, not initialised. What channels hand out and frames are built in. Large
// blocks are kept when they are freed, up to 512 MiB of a process, and used
// again.
#ifndef DELTAPIPE_BASE_BUFFER_H_
#define DELTAPIPE_BASE_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
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

  /// Bytes of somebody else's, who keeps them for as long as the buffer lives.
  static Buffer Borrow(absl::Span<uint8_t> bytes) {
    Buffer buffer;
    buffer.data_ = Block(bytes.data(), Free());
    buffer.size_ = static_cast<int64_t>(bytes.size());
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
  /// Makes the buffer `size` bytes long, with content that is not initialised:
  /// in the block that it owns, if that is large enough.
  void Reset(int64_t size) {
    // What is borrowed, and what was moved from, has no block.
    if (data_ == nullptr || size < 0 ||
        static_cast<size_t>(size) > data_.get_deleter().capacity) {
      size_ = 0;
      data_.reset();
      data_ = Allocate(size);
    }
    size_ = size;
  }
  /// Makes the buffer shorter without moving its bytes.
  void Truncate(int64_t size) { size_ = size < size_ ? size : size_; }

 private:
  struct Free {
    Free() : capacity(0) {}  // of what is borrowed
    explicit Free(size_t bytes) : capacity(bytes) {}
    size_t capacity;
    void operator()(uint8_t* data) const;
  };
  using Block = std::unique_ptr<uint8_t, Free>;
  /// Throws bad_alloc, as operator new does, when there is no memory.
  static Block Allocate(int64_t size);

  Block data_;
  int64_t size_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_BUFFER_H_
