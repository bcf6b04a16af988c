// NodeCache: memory for the nodes of containers. A node that is given back is
// kept for the next one of about its size, so that a container whose keys come
// and go allocates nothing once it has been as large as it gets.
//
//   NodeCache nodes;
//   std::pmr::map<uint64_t, RecordPtr> formers(&nodes);
//
// Outlives the containers; used by one thread at a time. What it keeps it gives
// back at its end only. Blocks of more than 128 bytes, tables, pass through.
#ifndef DELTAPIPE_COMPRESSION_DELTA_NODE_CACHE_H_
#define DELTAPIPE_COMPRESSION_DELTA_NODE_CACHE_H_

#include <cstddef>
#include <memory_resource>
#include <new>
#include <utility>

namespace deltapipe {

class NodeCache : public std::pmr::memory_resource {
 public:
  NodeCache() = default;
  ~NodeCache() override {
    for (Node* node : idle_) {
      while (node != nullptr)
        ::operator delete(std::exchange(node, node->next));
    }
  }
  NodeCache(const NodeCache&) = delete;
  NodeCache& operator=(const NodeCache&) = delete;

 private:
  struct Node {
    Node* next;
  };
  static constexpr size_t kUnit = 16;
  static constexpr size_t kMostBytes = 128;

  static bool IsKept(size_t bytes, size_t alignment) {
    return bytes > 0 && bytes <= kMostBytes &&
           alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__;
  }
  Node*& IdleOf(size_t bytes) { return idle_[(bytes - 1) / kUnit]; }

  void* do_allocate(size_t bytes, size_t alignment) override {
    if (!IsKept(bytes, alignment)) {
      return std::pmr::new_delete_resource()->allocate(bytes, alignment);
    }
    Node*& idle = IdleOf(bytes);
    if (idle != nullptr) return std::exchange(idle, idle->next);
    return ::operator new((bytes + kUnit - 1) / kUnit * kUnit);
  }

  void do_deallocate(void* data, size_t bytes, size_t alignment) override {
    if (!IsKept(bytes, alignment)) {
      std::pmr::new_delete_resource()->deallocate(data, bytes, alignment);
      return;
    }
    Node*& idle = IdleOf(bytes);
    idle = new (data) Node{idle};
  }

  bool do_is_equal(const memory_resource& other) const noexcept override {
    return this == &other;
  }

  Node* idle_[kMostBytes / kUnit] = {};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_NODE_CACHE_H_
