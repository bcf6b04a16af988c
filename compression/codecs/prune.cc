#include "compression/codecs/prune.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "compression/codecs/bit_stream.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/codecs/prune_threshold.h"
#include "compression/kernels/philox_words.h"
#include "compression/kernels/random_stream.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

class PruneCodec final : public Codec {
 public:
  PruneCodec(std::string text, double sparsity, PruneModel model,
             std::unique_ptr<Codec> values)
      : text_(std::move(text)),
        sparsity_(sparsity),
        model_(model),
        values_(std::move(values)) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    if (num_elements == 0) return 0;
    return kHeaderBytes + MapBytes(num_elements) + (2 * num_elements + 7) / 8 +
           values_->MaxPayloadBytes(num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    DP_RETURN_IF_ERROR(
        CheckRoom(text_, MaxPayloadBytes(in.size()), out.size()));
    if (in.empty()) return 0;
    const float threshold = PruneThreshold(model_, sparsity_, in);
    std::memcpy(out.data(), &threshold, sizeof(threshold));
    BitWriter map(out.data() + kHeaderBytes);
    BitWriter marks(out.data() + kHeaderBytes + MapBytes(in.size()));
    ElementWords words(key);
    ThreadScratch<float> excesses;
    for (const float value : in) {
      const float magnitude = std::fabs(value);
      const float level = UniformFloat(words.Next()) * threshold;
      const bool is_small = magnitude < threshold;
      const bool is_kept = is_small ? level < magnitude : magnitude != 0;
      map.Put(is_kept);
      if (!is_kept) continue;
      marks.Put(std::signbit(value));
      marks.Put(!is_small);
      if (!is_small) excesses->push_back(magnitude - threshold);
    }
    const int64_t size = kHeaderBytes + map.Finish() + marks.Finish();
    DP_ASSIGN_OR_RETURN(
        const int64_t value_bytes,
        values_->Encode(*excesses, StreamKey(key, kNestedCodecStream),
                        out.subspan(size)));
    return size + value_bytes;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t num_elements = out.size();
    if (num_elements == 0) {
      return CheckPayloadSize(text_, 0, 0, payload.size());
    }
    DP_ASSIGN_OR_RETURN(const Layout layout, Read(payload, num_elements));
    // The excesses go to the end of `out` and are moved forward: no place is
    // written before it was read, since as many are left as there are elements
    // to come, at most.
    const absl::Span<float> excesses = out.last(layout.num_large);
    DP_RETURN_IF_ERROR(
        values_->Decode(payload.subspan(layout.values_begin), excesses));
    BitReader map(payload.data() + kHeaderBytes);
    BitReader marks(payload.data() + kHeaderBytes + MapBytes(num_elements));
    const float* next = excesses.data();
    for (float& value : out) {
      if (!map.Take()) {
        value = 0;
        continue;
      }
      const bool is_negative = marks.Take();
      const float magnitude =
          marks.Take() ? Sum(layout.threshold, *next++) : layout.threshold;
      value = is_negative ? -magnitude : magnitude;
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    const Traits of_values = values_->traits();
    Traits traits;
    traits.has_fixed_size = false;
    traits.is_unbiased = of_values.is_unbiased || of_values.is_lossless;
    traits.is_stochastic = true;
    const double t = NormalPruneThreshold(sparsity_);
    const double large = std::erfc(t / std::sqrt(2.0));
    const double kept = 1 - sparsity_;
    traits.bits_per_element = 1 + 2 * kept + large * of_values.bits_per_element;
    return traits;
  }

  // The threshold is at most mean|x| over the share that survives.
  double ErrorBound(double block_max) const override {
    const double survivors = 1 - sparsity_ - PruneTolerance(sparsity_);
    return std::max(block_max / survivors * 1.001,
                    values_->ErrorBound(block_max) + block_max * 0x1p-23);
  }

 private:
  static constexpr int64_t kHeaderBytes = sizeof(float);

  struct Layout {
    float threshold;
    int64_t num_large;
    int64_t values_begin;
  };

  // A finite excess gives a finite sum.
  static float Sum(float threshold, float excess) {
    const float sum = threshold + excess;
    return std::isinf(sum) && !std::isinf(excess) ? FLT_MAX : sum;
  }

  static int64_t MapBytes(int64_t num_elements) {
    return (num_elements + 7) / 8;
  }

  absl::Status TooShort(int64_t num_elements, int64_t needed,
                        int64_t actual) const {
    return absl::InvalidArgumentError(
        absl::StrCat("decode with ", text_, " failed: payload of ", actual,
                     " bytes, expected at least ", needed, " for ",
                     num_elements, " elements"));
  }

  // Checks everything but the bytes of `values`.
  absl::StatusOr<Layout> Read(absl::Span<const uint8_t> payload,
                              int64_t num_elements) const {
    const int64_t map_end = kHeaderBytes + MapBytes(num_elements);
    const int64_t size = payload.size();
    if (size < map_end) return TooShort(num_elements, map_end, size);
    Layout layout{};
    std::memcpy(&layout.threshold, payload.data(), sizeof(float));
    if (!std::isfinite(layout.threshold) || std::signbit(layout.threshold)) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_, " failed: the threshold is ",
                       layout.threshold, ", expected a finite value >= 0"));
    }
    DP_RETURN_IF_ERROR(
        CheckUnusedBits(text_, num_elements, payload[map_end - 1]));
    BitReader map(payload.data() + kHeaderBytes);
    int64_t num_kept = 0;
    for (int64_t i = 0; i < num_elements; ++i) num_kept += map.Take();
    layout.values_begin = map_end + (2 * num_kept + 7) / 8;
    if (size < layout.values_begin) {
      return TooShort(num_elements, layout.values_begin, size);
    }
    if (num_kept > 0) {
      DP_RETURN_IF_ERROR(CheckUnusedBits(text_, 2 * num_kept,
                                         payload[layout.values_begin - 1]));
    }
    BitReader marks(payload.data() + map_end);
    for (int64_t i = 0; i < num_kept; ++i) {
      marks.Take();
      layout.num_large += marks.Take();
    }
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, num_elements,
        layout.values_begin + values_->MaxPayloadBytes(layout.num_large),
        size));
    return layout;
  }

  const std::string text_;
  const double sparsity_;
  const PruneModel model_;
  const std::unique_ptr<Codec> values_;
};

constexpr CodecParameter kParameters[] = {
    NumberParameter("sparsity", "", 0, 1, "share of values that become 0"),
    ChoiceParameter("model", "lognormal", "lognormal|normal|exact",
                    "how the threshold is found"),
    InnerCodecParameter("values", "luq",
                        "what the values above the threshold go through; of "
                        "fixed size"),
};

}  // namespace

absl::Span<const CodecParameter> PruneParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakePruneCodec(
    const CodecArguments& arguments) {
  const CodecSpec& spec = arguments.Codec("values");
  DP_ASSIGN_OR_RETURN(std::unique_ptr<Codec> values, MakeCodecFromSpec(spec));
  if (!values->traits().has_fixed_size) {
    return CodecSpecError(
        spec, absl::StrCat("values: expected a codec of fixed size, got ",
                           CodecSpecText(spec), " (the nearest is luq)"));
  }
  const std::string& model = arguments.Word("model");
  return std::unique_ptr<Codec>(
      new PruneCodec(arguments.CanonicalText(), arguments.Number("sparsity"),
                     model == "exact"    ? PruneModel::kExact
                     : model == "normal" ? PruneModel::kNormal
                                         : PruneModel::kLognormal,
                     std::move(values)));
}

}  // namespace deltapipe
