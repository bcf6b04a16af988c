#include "base/buffer.h"

#include <cstdlib>
#include <list>
#include <map>
#include <new>

#include "base/mutex.h"

namespace deltapipe {
namespace {

// What is smaller costs the allocator less than the lock here would.
constexpr size_t kLeastKept = 256 << 10;
// A sanitizer finds a use after free only if what is freed is gone.
#if defined(__SANITIZE_ADDRESS__)
#define DP_FREES_AT_ONCE
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DP_FREES_AT_ONCE
#endif
#endif
#if defined(DP_FREES_AT_ONCE)
constexpr size_t kMostIdle = 0;
#else
constexpr size_t kMostIdle = 512 << 20;
#endif

/// Sizes that differ by less than an eighth share blocks.
size_t RoundedUp(size_t size) {
  size_t unit = 64;
  while (unit * 16 <= size) unit *= 2;
  return (size + unit - 1) / unit * unit;
}

/// Freed blocks, to be used again: each step allocates what the step before
/// did, and a fresh block of the system costs a page fault, and zeroing, every
/// 4 KiB.
class IdleBlocks {
 public:
  /// Null: none of this capacity is idle.
  uint8_t* Take(size_t capacity) {
    MutexLock lock(&mutex_);
    const auto found = by_capacity_.find(capacity);
    if (found == by_capacity_.end()) return nullptr;
    // The youngest: its bytes may still be in a cache.
    const auto block = found->second.back();
    uint8_t* data = block->data;
    Forget(block);
    return data;
  }

  void Give(uint8_t* data, size_t capacity) {
    // Larger than all that may be idle: it would only push the others out.
    if (capacity > kMostIdle) return std::free(data);
    std::list<Block> dropped;
    {
      MutexLock lock(&mutex_);
      blocks_.push_back({data, capacity});
      by_capacity_[capacity].push_back(std::prev(blocks_.end()));
      idle_bytes_ += capacity;
      while (idle_bytes_ > kMostIdle) {
        dropped.push_back(blocks_.front());
        Forget(blocks_.begin());
      }
    }
    for (const Block& block : dropped) std::free(block.data);
  }

 private:
  struct Block {
    uint8_t* data;
    size_t capacity;
  };
  using Place = std::list<Block>::iterator;

  void Forget(Place block) DP_REQUIRES(mutex_) {
    const auto same = by_capacity_.find(block->capacity);
    same->second.remove(block);
    if (same->second.empty()) by_capacity_.erase(same);
    idle_bytes_ -= block->capacity;
    blocks_.erase(block);
  }

  Mutex mutex_;
  std::list<Block> blocks_ DP_GUARDED_BY(mutex_);  // oldest first
  std::map<size_t, std::list<Place>> by_capacity_ DP_GUARDED_BY(mutex_);
  size_t idle_bytes_ DP_GUARDED_BY(mutex_) = 0;
};

IdleBlocks& Idle() {
  static IdleBlocks* const blocks = new IdleBlocks;  // outlives every buffer
  return *blocks;
}

}  // namespace

Buffer::Block Buffer::Allocate(int64_t size) {
  if (size == 0) return Block();
  if (size < 0 || size > INT64_MAX / 2) throw std::bad_alloc();
  const size_t capacity = RoundedUp(static_cast<size_t>(size));
  uint8_t* data = capacity >= kLeastKept ? Idle().Take(capacity) : nullptr;
  if (data == nullptr) {
    data = static_cast<uint8_t*>(std::aligned_alloc(64, capacity));
  }
  if (data == nullptr) throw std::bad_alloc();
  return Block(data, Free{capacity});
}

void Buffer::Free::operator()(uint8_t* data) const {
  if (capacity == 0) return;
  if (capacity >= kLeastKept) {
    Idle().Give(data, capacity);
  } else {
    std::free(data);
  }
}

}  // namespace deltapipe
