// A borrowed, contiguous, row-major tensor in host memory: the type that
// crosses folders, so that LibTorch ends in worker/stage.
//
// Does not own its bytes; the owner outlives the view. Rank 0 to 8.
//
//   TensorView view(DType::kFloat32, {4, 128, 256}, data);
//   absl::Span<float> values = view.Values<float>();
#ifndef DELTAPIPE_BASE_TENSOR_VIEW_H_
#define DELTAPIPE_BASE_TENSOR_VIEW_H_

#include <cassert>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"

namespace deltapipe {

/// Element types. The numbers are part of the wire format.
enum class DType : uint8_t {
  kFloat32 = 0,
  kFloat16 = 1,
  kBFloat16 = 2,
  kUInt8 = 3,
  kInt32 = 4,
  kInt64 = 5,
  kFloat64 = 6,
  kUInt64 = 7,
};

inline int64_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kUInt8:
      return 1;
    case DType::kInt64:
    case DType::kFloat64:
    case DType::kUInt64:
      return 8;
  }
  return 0;
}

using Shape = absl::InlinedVector<int64_t, 4>;

inline int64_t NumElements(absl::Span<const int64_t> shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1},
                         [](int64_t a, int64_t b) { return a * b; });
}

/// "4x128x256"; "scalar" for rank 0.
inline std::string ShapeString(absl::Span<const int64_t> shape) {
  return shape.empty() ? "scalar" : absl::StrJoin(shape, "x");
}

class TensorView {
 public:
  /// No elements: shape {0}.
  TensorView() = default;
  TensorView(DType dtype, absl::Span<const int64_t> shape, void* data)
      : dtype_(dtype),
        shape_(shape.begin(), shape.end()),
        num_elements_(NumElements(shape_)),
        data_(data) {}

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t num_elements() const { return num_elements_; }
  int64_t num_bytes() const { return num_elements_ * DTypeBytes(dtype_); }
  void* data() const { return data_; }

  /// The elements; T must be the host type of dtype().
  template <typename T>
  absl::Span<T> Values() const {
    assert(sizeof(T) == DTypeBytes(dtype_));
    return absl::MakeSpan(static_cast<T*>(data_),
                          static_cast<size_t>(num_elements_));
  }

 private:
  DType dtype_ = DType::kFloat32;
  Shape shape_ = Shape(1, 0);  // no elements
  int64_t num_elements_ = 0;
  void* data_ = nullptr;
};

/// A tensor that owns its bytes, zero-filled at first.
class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(DType dtype, Shape shape)
      : dtype_(dtype),
        shape_(std::move(shape)),
        bytes_(NumElements(shape_) * DTypeBytes(dtype)) {}

  TensorView view() { return TensorView(dtype_, shape_, bytes_.data()); }
  template <typename T>
  absl::Span<T> Values() {
    return view().Values<T>();
  }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  bool empty() const { return bytes_.empty(); }

 private:
  DType dtype_ = DType::kFloat32;
  Shape shape_ = Shape(1, 0);  // no elements
  std::vector<uint8_t> bytes_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TENSOR_VIEW_H_
