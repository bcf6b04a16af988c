#include "compression/codecs/per_head.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

// What memory of this codec begins with.
constexpr float kMemoryTag = 7368.0f;
constexpr size_t kMemoryHead = 2;  // the tag, the number of heads
constexpr float kNoRange = -1;
constexpr double kDecay = 0.9;

// center - half .. center + half. `half` is NaN where a head has a NaN.
struct Range {
  float half = 0;
  float center = 0;
};
static_assert(sizeof(Range) == 2 * sizeof(float), "as in payloads");

class HeadLayout {
 public:
  HeadLayout(int64_t num_elements, int64_t row, int64_t head)
      : num_elements_(num_elements),
        row_(row == 0 ? num_elements : std::min(row, num_elements)),
        head_(head) {}

  int64_t num_heads() const { return row_ == 0 ? 0 : (row_ - 1) / head_ + 1; }

  /// Calls function(begin, end) for the runs of a head, in order.
  template <class Function>
  void ForEachRun(int64_t head, Function function) const {
    for (int64_t begin = head * head_; begin < num_elements_; begin += row_) {
      const int64_t left = row_ - head * head_;
      function(begin, std::min(begin + std::min(head_, left), num_elements_));
    }
  }

 private:
  const int64_t num_elements_;
  const int64_t row_;
  const int64_t head_;
};

class PerHeadCodec final : public Codec {
 public:
  PerHeadCodec(std::string text, std::unique_ptr<Codec> codec, int64_t head,
               int64_t row)
      : text_(std::move(text)),
        codec_(std::move(codec)),
        head_(head),
        row_(row) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return RangeBytes(num_elements) + codec_->MaxPayloadBytes(num_elements);
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
    DP_RETURN_IF_ERROR(
        CheckRoom(text_, MaxPayloadBytes(in.size()), out.size()));
    const HeadLayout layout(in.size(), row_, head_);
    const size_t own_memory = kMemoryHead + 2 * layout.num_heads();
    if (!IsOurs(*memory, layout.num_heads())) ClearMemory(layout, memory);
    ThreadScratch<float> mapped_scratch, inner_scratch;
    std::vector<float>& mapped = *mapped_scratch;
    mapped.resize(in.size());
    uint8_t* at = out.data();
    size_t num_mapped = 0;
    for (int64_t h = 0; h < layout.num_heads(); ++h) {
      float* const running = memory->data() + kMemoryHead + 2 * h;
      const Range range = NextRange(RangeOf(layout, h, in), running);
      std::memcpy(at, &range, sizeof(range));
      at += sizeof(range);
      const double inverse = range.half > 0 ? 1.0 / range.half : 0;
      layout.ForEachRun(h, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const double value = (in[i] - double{range.center}) * inverse;
          mapped[num_mapped++] =
              std::isnan(range.half)
                  ? 0
                  : static_cast<float>(std::min(std::max(value, -1.0), 1.0));
        }
      });
    }
    std::vector<float>& inner_memory = *inner_scratch;
    inner_memory.assign(memory->begin() + own_memory, memory->end());
    DP_ASSIGN_OR_RETURN(const int64_t size,
                        codec_->EncodeNext(mapped, key, &inner_memory,
                                           out.subspan(RangeBytes(in.size()))));
    memory->resize(own_memory);
    memory->insert(memory->end(), inner_memory.begin(), inner_memory.end());
    return RangeBytes(in.size()) + size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t payload_size = payload.size();
    const int64_t range_bytes = RangeBytes(out.size());
    if (traits().has_fixed_size || payload_size < range_bytes) {
      DP_RETURN_IF_ERROR(CheckPayloadSize(
          text_, out.size(), MaxPayloadBytes(out.size()), payload_size));
    }
    ThreadScratch<float> mapped_scratch;
    std::vector<float>& mapped = *mapped_scratch;
    mapped.resize(out.size());
    DP_RETURN_IF_ERROR(
        codec_->Decode(payload.subspan(range_bytes), absl::MakeSpan(mapped)));
    const HeadLayout layout(out.size(), row_, head_);
    size_t num_mapped = 0;
    for (int64_t h = 0; h < layout.num_heads(); ++h) {
      Range range;
      std::memcpy(&range, payload.data() + sizeof(range) * h, sizeof(range));
      const bool is_nan = std::isnan(range.half);
      if (!is_nan && !(range.half >= 0 && range.half <= FLT_MAX &&
                       std::isfinite(range.center))) {
        return absl::InvalidArgumentError(absl::StrCat(
            "decode with ", text_, " failed: head ", h, " ranges by ",
            range.half, " around ", range.center,
            ", expected finite values, the first >= 0, or NaN as the first"));
      }
      layout.ForEachRun(h, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          out[i] = is_nan ? std::numeric_limits<float>::quiet_NaN()
                          : Unmapped(range, mapped[num_mapped]);
          ++num_mapped;
        }
      });
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    const Traits inner = codec_->traits();
    Traits traits;
    traits.has_fixed_size = inner.has_fixed_size;
    traits.is_random = inner.is_random || inner.is_stochastic;
    traits.has_memory = true;
    traits.bits_per_element =
        inner.bits_per_element +
        (row_ == 0 ? 64.0 / static_cast<double>(head_) : 0.0);
    return traits;
  }

  // Half a head's range is at most its largest magnitude; what is rounded to
  // fp32 on the way is small beside it.
  double ErrorBound(double block_max) const override {
    return FromMapped(block_max, codec_->ErrorBound(1));
  }

  double TensorErrorBound(double tensor_max,
                          int64_t num_elements) const override {
    return FromMapped(tensor_max, codec_->TensorErrorBound(1, num_elements));
  }

 private:
  static double FromMapped(double max, double error) {
    return max * (error * (1 + 1e-6) + 1e-6) + 0x1p-140;
  }

  static float Unmapped(const Range& range, float mapped) {
    const double value =
        range.center + static_cast<double>(range.half) * mapped;
    // A NaN stays one.
    if (value > FLT_MAX) return FLT_MAX;
    if (value < -FLT_MAX) return -FLT_MAX;
    return static_cast<float>(value);
  }

  int64_t RangeBytes(int64_t num_elements) const {
    return HeadLayout(num_elements, row_, head_).num_heads() *
           static_cast<int64_t>(sizeof(Range));
  }

  static Range RangeOf(const HeadLayout& layout, int64_t head,
                       absl::Span<const float> in) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    bool all_finite = true;
    layout.ForEachRun(head, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        all_finite &= std::isfinite(in[i]);
        low = std::min<double>(low, in[i]);
        high = std::max<double>(high, in[i]);
      }
    });
    Range range;
    range.half = all_finite ? static_cast<float>((high - low) / 2)
                            : std::numeric_limits<float>::quiet_NaN();
    range.center = all_finite ? static_cast<float>((high + low) / 2) : 0;
    return range;
  }

  // The range to use; keeps it in `running`.
  static Range NextRange(Range current, float* running) {
    if (std::isnan(current.half)) return current;
    if (running[0] != kNoRange) {
      const auto mixed = [](float old, float now) {
        return static_cast<float>(kDecay * old + (1 - kDecay) * now);
      };
      current.half = mixed(running[0], current.half);
      current.center = mixed(running[1], current.center);
    }
    running[0] = current.half;
    running[1] = current.center;
    return current;
  }

  static bool IsOurs(const std::vector<float>& memory, int64_t num_heads) {
    const size_t own_memory = kMemoryHead + 2 * num_heads;
    if (memory.size() < own_memory || memory[0] != kMemoryTag ||
        memory[1] != static_cast<float>(num_heads)) {
      return false;
    }
    for (size_t i = kMemoryHead; i < own_memory; i += 2) {
      const bool is_range =
          memory[i] == kNoRange || (memory[i] >= 0 && memory[i] <= FLT_MAX);
      if (!is_range || !std::isfinite(memory[i + 1])) return false;
    }
    return true;
  }

  static void ClearMemory(const HeadLayout& layout,
                          std::vector<float>* memory) {
    memory->assign(kMemoryHead + 2 * layout.num_heads(), kNoRange);
    (*memory)[0] = kMemoryTag;
    (*memory)[1] = static_cast<float>(layout.num_heads());
  }

  const std::string text_;
  const std::unique_ptr<Codec> codec_;
  const int64_t head_;
  const int64_t row_;
};

constexpr CodecParameter kParameters[] = {
    InnerCodecParameter("codec", "", "for the values mapped onto -1..1"),
    IntegerParameter("head", "64", 1, 1 << 20, "columns of a head"),
    ExtentParameter("row", 1, "columns of a row; 0: one row"),
};

}  // namespace

absl::Span<const CodecParameter> PerHeadParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakePerHeadCodec(
    const CodecArguments& arguments) {
  DP_ASSIGN_OR_RETURN(std::unique_ptr<Codec> codec,
                      MakeCodecFromSpec(arguments.Codec("codec")));
  return std::unique_ptr<Codec>(
      new PerHeadCodec(arguments.CanonicalText(), std::move(codec),
                       arguments.Integer("head"), arguments.Integer("row")));
}

}  // namespace deltapipe
