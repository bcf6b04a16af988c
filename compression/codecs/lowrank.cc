#include "compression/codecs/lowrank.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

constexpr int kMaxRank = 64;
// What memory of this codec begins with.
constexpr float kMemoryTag = 7683.0f;
constexpr size_t kMemoryHead = 3;  // the tag, columns, rank
// A column of P that keeps less than this share of its norm depends on those
// before it.
constexpr double kDependent = 1e-10;

// n values as rows, and the factors' common width.
struct MatrixShape {
  MatrixShape(int64_t n, int64_t columns_or_zero, int64_t max_rank) : n(n) {
    if (n == 0) return;
    columns = columns_or_zero;
    if (columns == 0) {
      columns = static_cast<int64_t>(std::sqrt(static_cast<double>(n)));
      while (columns * columns < n) ++columns;
    }
    columns = std::min(columns, n);
    rows = (n - 1) / columns + 1;
    rank = std::min({max_rank, rows, columns});
  }
  int64_t payload_bytes() const {
    return n == 0 ? 0 : 4 + 2 * rank * (rows + columns);
  }

  int64_t n;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t rank = 0;
};

// Thin matrices, row after row.
using Factor = std::vector<double>;

// The largest power of two <= the largest magnitude.
float ScaleOf(absl::Span<const float> values) {
  float max = 0;
  bool all_finite = true;
  for (const float value : values) {
    all_finite &= std::isfinite(value);
    max = std::max(max, std::fabs(value));
  }
  if (!all_finite) return std::numeric_limits<float>::quiet_NaN();
  return max == 0 ? 0 : std::ldexp(1.0f, std::ilogb(max));
}

// M / scale times thin matrices.
class ScaledMatrix {
 public:
  ScaledMatrix(const MatrixShape& shape, absl::Span<const float> values,
               double scale)
      : shape_(shape), values_(values), inverse_(1 / scale) {}

  /// p = M q.
  void Times(const Factor& q, Factor* p) const {
    p->assign(shape_.rows * shape_.rank, 0);
    for (int64_t i = 0; i < shape_.rows; ++i) {
      const auto row = Row(i);
      double* const sums = p->data() + i * shape_.rank;
      for (size_t j = 0; j < row.size(); ++j) {
        AddScaled(row[j] * inverse_, q.data() + j * shape_.rank, sums);
      }
    }
  }

  /// q = M^T p.
  void TransposedTimes(const Factor& p, Factor* q) const {
    q->assign(shape_.columns * shape_.rank, 0);
    for (int64_t i = 0; i < shape_.rows; ++i) {
      const auto row = Row(i);
      for (size_t j = 0; j < row.size(); ++j) {
        AddScaled(row[j] * inverse_, p.data() + i * shape_.rank,
                  q->data() + j * shape_.rank);
      }
    }
  }

 private:
  absl::Span<const float> Row(int64_t i) const {
    return values_.subspan(i * shape_.columns, shape_.columns);
  }
  void AddScaled(double factor, const double* in, double* sums) const {
    for (int64_t k = 0; k < shape_.rank; ++k) sums[k] += factor * in[k];
  }

  const MatrixShape& shape_;
  const absl::Span<const float> values_;
  const double inverse_;
};

// Modified Gram-Schmidt, twice, column by column. Columns that depend on
// earlier ones become zero.
void Orthonormalize(int64_t rank, Factor* p) {
  const int64_t rows = static_cast<int64_t>(p->size()) / rank;
  const auto dot = [&](int64_t a, int64_t b) {
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) {
      sum += (*p)[i * rank + a] * (*p)[i * rank + b];
    }
    return sum;
  };
  for (int64_t k = 0; k < rank; ++k) {
    const double norm_before = std::sqrt(dot(k, k));
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t other = 0; other < k; ++other) {
        const double share = dot(other, k);
        for (int64_t i = 0; i < rows; ++i) {
          (*p)[i * rank + k] -= share * (*p)[i * rank + other];
        }
      }
    }
    const double norm = std::sqrt(dot(k, k));
    const double inverse = norm > kDependent * norm_before ? 1 / norm : 0;
    for (int64_t i = 0; i < rows; ++i) (*p)[i * rank + k] *= inverse;
  }
}

// Writes bf16 and leaves in `factor` what was written.
uint8_t* StoreFactor(Factor* factor, uint8_t* at) {
  for (double& value : *factor) {
    const uint16_t narrow = FloatToBFloat16(static_cast<float>(value));
    std::memcpy(at, &narrow, sizeof(narrow));
    at += sizeof(narrow);
    value = BFloat16ToFloat(narrow);
  }
  return at;
}

// False if a value is not finite.
bool LoadFactor(const uint8_t* at, Factor* factor) {
  bool all_finite = true;
  for (double& value : *factor) {
    uint16_t narrow;
    std::memcpy(&narrow, at, sizeof(narrow));
    at += sizeof(narrow);
    value = BFloat16ToFloat(narrow);
    all_finite &= std::isfinite(value);
  }
  return all_finite;
}

class LowRankCodec final : public Codec {
 public:
  LowRankCodec(std::string text, int64_t rank, int64_t columns, int iterations)
      : text_(std::move(text)),
        rank_(rank),
        columns_(columns),
        iterations_(iterations) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return ShapeOf(num_elements).payload_bytes();
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    ThreadScratch<float> memory;
    return EncodeNext(in, key, &*memory, out);
  }

  absl::StatusOr<int64_t> EncodeNext(absl::Span<const float> in,
                                     const RandomKey& key,
                                     std::vector<float>* memory,
                                     absl::Span<uint8_t> out) const override {
    const MatrixShape shape = ShapeOf(in.size());
    const int64_t size = shape.payload_bytes();
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    ThreadScratch<double> q_scratch, p_scratch;
    Factor& q = *q_scratch;
    Factor& p = *p_scratch;
    Start(shape, key, &q);
    TakeFromMemory(shape, *memory, &q);
    KeepInMemory(shape, q, memory);
    if (in.empty()) return size;
    const float scale = ScaleOf(in);
    std::fill_n(out.data(), size, uint8_t{0});
    std::memcpy(out.data(), &scale, sizeof(scale));
    if (!(scale > 0)) return size;

    const ScaledMatrix matrix(shape, in, scale);
    uint8_t* q_at = nullptr;
    for (int i = 0; i < iterations_; ++i) {
      matrix.Times(q, &p);
      Orthonormalize(shape.rank, &p);
      if (i + 1 == iterations_) {
        q_at = StoreFactor(&p, out.data() + sizeof(scale));
      }
      matrix.TransposedTimes(p, &q);
    }
    StoreFactor(&q, q_at);
    KeepInMemory(shape, q, memory);
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const MatrixShape shape = ShapeOf(out.size());
    DP_RETURN_IF_ERROR(CheckPayloadSize(text_, out.size(),
                                        shape.payload_bytes(), payload.size()));
    if (out.empty()) return absl::OkStatus();
    float scale;
    std::memcpy(&scale, payload.data(), sizeof(scale));
    if (std::isnan(scale)) {
      std::fill(out.begin(), out.end(), scale);
      return absl::OkStatus();
    }
    ThreadScratch<double> q_scratch, p_scratch;
    Factor& q = *q_scratch;
    Factor& p = *p_scratch;
    q.resize(shape.columns * shape.rank);
    p.resize(shape.rows * shape.rank);
    int exponent;
    const bool is_scale = scale == 0 || (scale > 0 && scale <= FLT_MAX &&
                                         std::frexp(scale, &exponent) == 0.5f);
    if (!is_scale || !LoadFactor(payload.data() + 4, &p) ||
        !LoadFactor(payload.data() + 4 + 2 * p.size(), &q)) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_, " failed: scale ", scale,
                       ", expected 0 or a power of two, and finite factors"));
    }
    for (int64_t i = 0; i < shape.n; ++i) {
      const double* const p_row = p.data() + i / shape.columns * shape.rank;
      const double* const q_row = q.data() + i % shape.columns * shape.rank;
      double sum = 0;
      for (int64_t k = 0; k < shape.rank; ++k) sum += p_row[k] * q_row[k];
      sum *= scale;
      out[i] = static_cast<float>(
          std::min(std::max(sum, -double{FLT_MAX}), double{FLT_MAX}));
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.is_random = true;
    traits.has_memory = true;
    // Of a square matrix: none in the limit.
    traits.bits_per_element =
        columns_ == 0 ? 0.0
                      : 16.0 * static_cast<double>(std::min(rank_, columns_)) /
                            static_cast<double>(columns_);
    return traits;
  }

  double ErrorBound(double block_max) const override {
    return block_max == 0 ? 0 : std::numeric_limits<double>::infinity();
  }

  // M - P P^T M is no longer than M. Rounding P, of norm sqrt(rank), and Q by
  // 2^-9 of each element adds less than 4 * 2^-9 * sqrt(rank) of M's norm, its
  // squares and the last rounding as much again.
  double TensorErrorBound(double tensor_max,
                          int64_t num_elements) const override {
    const double rounding = 0x1p-6 * std::sqrt(static_cast<double>(rank_));
    return tensor_max * std::sqrt(static_cast<double>(num_elements)) *
               (1 + rounding) +
           0x1p-148;
  }

 private:
  MatrixShape ShapeOf(int64_t num_elements) const {
    return MatrixShape(num_elements, columns_, rank_);
  }

  // Uniform in (-1, 1): of full rank but for one key in very many.
  static void Start(const MatrixShape& shape, const RandomKey& key, Factor* q) {
    RandomKey of_tensor;
    of_tensor.seed = key.seed;
    of_tensor.tensor_id = key.tensor_id;
    q->resize(shape.columns * shape.rank);
    PhiloxBlock words{};
    for (size_t i = 0; i < q->size(); ++i) {
      if (i % 4 == 0) {
        words =
            Philox4x32(of_tensor.PhiloxCounter(static_cast<uint32_t>(i / 4)),
                       of_tensor.PhiloxKey());
      }
      (*q)[i] = 2.0 * UniformFloat(words[i % 4]) - 1 + 0x1p-24;
    }
  }

  // Leaves columns of the start where the last Q has none: a direction that was
  // not there last time can come.
  static void TakeFromMemory(const MatrixShape& shape,
                             const std::vector<float>& memory, Factor* q) {
    if (memory.size() != kMemoryHead + q->size() || memory[0] != kMemoryTag ||
        memory[1] != static_cast<float>(shape.columns) ||
        memory[2] != static_cast<float>(shape.rank)) {
      return;
    }
    const auto last = absl::MakeConstSpan(memory).subspan(kMemoryHead);
    const bool all_finite =
        std::all_of(last.begin(), last.end(),
                    [](float value) { return std::isfinite(value); });
    for (int64_t k = 0; k < shape.rank && all_finite; ++k) {
      bool is_zero = true;
      for (size_t i = k; i < q->size(); i += shape.rank) {
        is_zero &= last[i] == 0;
      }
      if (is_zero) continue;
      for (size_t i = k; i < q->size(); i += shape.rank) (*q)[i] = last[i];
    }
  }

  static void KeepInMemory(const MatrixShape& shape, const Factor& q,
                           std::vector<float>* memory) {
    memory->resize(kMemoryHead);
    (*memory)[0] = kMemoryTag;
    (*memory)[1] = static_cast<float>(shape.columns);
    (*memory)[2] = static_cast<float>(shape.rank);
    memory->insert(memory->end(), q.begin(), q.end());
  }

  const std::string text_;
  const int64_t rank_;
  const int64_t columns_;
  const int iterations_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("rank", "", 1, kMaxRank, "columns of the factors"),
    ExtentParameter("columns", 1, "of the matrix; 0: a square one"),
    IntegerParameter("iterations", "1", 1, 16, "steps of power iteration"),
};

}  // namespace

absl::Span<const CodecParameter> LowRankParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeLowRankCodec(
    const CodecArguments& arguments) {
  return std::unique_ptr<Codec>(
      new LowRankCodec(arguments.CanonicalText(), arguments.Integer("rank"),
                       arguments.Integer("columns"),
                       static_cast<int>(arguments.Integer("iterations"))));
}

}  // namespace deltapipe
