#include "compression/codecs/topk.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/index_set.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

// In the order of magnitudes; NaN above all.
uint32_t MagnitudeBits(float value) { return FloatBits(value) & 0x7FFFFFFFu; }

// The k-th largest magnitude, and how many elements of just that are among the
// k largest.
struct Threshold {
  uint32_t bits = 0;
  int64_t num_equal = 0;
};

// Finds the digits of the threshold from the highest on, by counting.
Threshold FindThreshold(absl::Span<const float> in, int64_t k) {
  Threshold threshold;
  threshold.num_equal = k;
  int known_bits = 0;
  for (const int digit_bits : {11, 10, 10}) {
    const int shift = 31 - known_bits - digit_bits;
    const uint32_t mask = (1u << digit_bits) - 1;
    std::array<int64_t, 2048> counts{};
    for (const float value : in) {
      const uint32_t bits = MagnitudeBits(value);
      const bool is_candidate =
          uint64_t{bits} >> (shift + digit_bits) ==
          uint64_t{threshold.bits} >> (shift + digit_bits);
      counts[bits >> shift & mask] += is_candidate;
    }
    uint32_t digit = mask;
    for (; counts[digit] < threshold.num_equal; --digit) {
      threshold.num_equal -= counts[digit];
    }
    threshold.bits |= digit << shift;
    known_bits += digit_bits;
  }
  return threshold;
}

class TopKCodec final : public Codec {
 public:
  TopKCodec(std::string text, double ratio, std::unique_ptr<Codec> values)
      : text_(std::move(text)), ratio_(ratio), values_(std::move(values)) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    const IndexSetLayout layout = LayoutOf(num_elements);
    return layout.bytes() + values_->MaxPayloadBytes(layout.k);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    DP_RETURN_IF_ERROR(
        CheckRoom(text_, MaxPayloadBytes(in.size()), out.size()));
    const IndexSetLayout layout = LayoutOf(in.size());
    if (layout.k == 0) return int64_t{0};
    Threshold threshold = FindThreshold(in, layout.k);
    IndexSetWriter indices(layout, out.data());
    ThreadScratch<float> kept;
    kept->reserve(layout.k);
    for (size_t i = 0; i < in.size(); ++i) {
      const uint32_t bits = MagnitudeBits(in[i]);
      if (bits < threshold.bits) continue;
      if (bits == threshold.bits && threshold.num_equal-- <= 0) continue;
      indices.Add(static_cast<int64_t>(i));
      kept->push_back(in[i]);
    }
    DP_ASSIGN_OR_RETURN(
        const int64_t size,
        values_->Encode(*kept, key, out.subspan(layout.bytes())));
    return layout.bytes() + size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const IndexSetLayout layout = LayoutOf(out.size());
    const int64_t payload_size = payload.size();
    if (traits().has_fixed_size || payload_size < layout.bytes()) {
      DP_RETURN_IF_ERROR(CheckPayloadSize(
          text_, out.size(), MaxPayloadBytes(out.size()), payload_size));
    }
    ThreadScratch<float> kept;
    kept->resize(layout.k);
    DP_RETURN_IF_ERROR(values_->Decode(payload.subspan(layout.bytes()),
                                       absl::MakeSpan(*kept)));
    std::fill(out.begin(), out.end(), 0.0f);
    IndexSetReader indices(layout, payload.data());
    for (const float value : *kept) {
      const int64_t index = indices.Next();
      if (index < 0) return BadIndices(layout);
      out[index] = value;
    }
    return indices.IsAtEnd() ? absl::OkStatus() : BadIndices(layout);
  }

  Traits traits() const override {
    const Traits inner = values_->traits();
    Traits traits;
    traits.has_fixed_size = inner.has_fixed_size;
    traits.is_random = inner.is_random || inner.is_stochastic;
    const int low_bits = std::ilogb(1 / ratio_);
    traits.bits_per_element =
        std::min(1.0, ratio_ * (low_bits + 1) + std::ldexp(1.0, -low_bits)) +
        ratio_ * inner.bits_per_element;
    return traits;
  }

  // What is left out is lost whole.
  double ErrorBound(double block_max) const override {
    return std::max(block_max, values_->ErrorBound(block_max));
  }

  double TensorErrorBound(double tensor_max,
                          int64_t num_elements) const override {
    return std::max(tensor_max, values_->TensorErrorBound(
                                    tensor_max, LayoutOf(num_elements).k));
  }

 private:
  IndexSetLayout LayoutOf(int64_t num_elements) const {
    const auto k = static_cast<int64_t>(
        std::floor(ratio_ * static_cast<double>(num_elements) + 0.5));
    return IndexSetLayout(num_elements,
                          std::min(std::max(k, int64_t{1}), num_elements));
  }

  absl::Status BadIndices(const IndexSetLayout& layout) const {
    return absl::InvalidArgumentError(
        absl::StrCat("decode with ", text_, " failed: the indices are not ",
                     layout.k, " of ", layout.n, " elements"));
  }

  const std::string text_;
  const double ratio_;
  const std::unique_ptr<Codec> values_;
};

constexpr CodecParameter kParameters[] = {
    NumberParameter("ratio", "", 0, 1, "share of the elements that is sent"),
    InnerCodecParameter("values", "cast(bf16)", "for the values that are sent"),
};

}  // namespace

absl::Span<const CodecParameter> TopKParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeTopKCodec(
    const CodecArguments& arguments) {
  DP_ASSIGN_OR_RETURN(std::unique_ptr<Codec> values,
                      MakeCodecFromSpec(arguments.Codec("values")));
  return std::unique_ptr<Codec>(new TopKCodec(
      arguments.CanonicalText(), arguments.Number("ratio"), std::move(values)));
}

}  // namespace deltapipe
