#include "compression/codecs/int_general.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/int_channels.h"
#include "compression/codecs/int_layout.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

constexpr int64_t kOriginBytes = 2;

class GeneralIntCodec final : public Codec {
 public:
  GeneralIntCodec(std::string text, const IntGeneralOptions& options)
      : text_(std::move(text)), options_(options) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    if (num_elements == 0) return 0;
    const IntLayout layout = LayoutOf(num_elements);
    return HeadBytes(num_elements) + layout.num_blocks() * FieldBytes() +
           layout.TotalBytes(
               [this](int64_t count) { return CodeBytes(count); });
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
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    if (in.empty()) return 0;
    const IntLayout layout = LayoutOf(in.size());
    uint8_t* at = out.data() + (HasWindow() ? 1 : 0);
    IntChannelScales channels(NumChannels(in.size()));
    if (options_.has_channels) {
      ThreadScratch<double> squares;
      SumMeanSquares(layout, in, &*squares);
      channels.Update(*squares, memory, at);
    }
    alignas(64) float scratch[kIntMaxBlock];
    int window = 0;
    if (HasWindow()) {
      IntWindowChooser chooser(options_.block);
      for (int64_t i = 0; i < layout.num_blocks(); ++i) {
        chooser.Add(Gather(layout.At(i), channels, in, scratch));
      }
      window = chooser.Window();
      out[0] = static_cast<uint8_t>(window);
    }
    const IntBlockCoder coder(options_.block, window);
    const Places places = PlacesOf(layout, in.size());
    uint8_t* packed = out.data() + places.codes;
    for (int64_t i = 0; i < layout.num_blocks(); ++i) {
      const auto values = Gather(layout.At(i), channels, in, scratch);
      const IntBlockFields fields = coder.Encode(values, key, i, packed);
      packed += CodeBytes(values.size());
      const int64_t scale_bytes = IntScaleFieldBytes(options_.block);
      std::memcpy(out.data() + places.scales + i * scale_bytes, &fields.scale,
                  scale_bytes);
      if (options_.block.is_affine) {
        std::memcpy(out.data() + places.origins + i * kOriginBytes,
                    &fields.origin, kOriginBytes);
      }
    }
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, out.size(), MaxPayloadBytes(out.size()), payload.size()));
    if (out.empty()) return absl::OkStatus();
    const int window = HasWindow() ? payload[0] : 0;
    if (window > kIntMaxWindow) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_, " failed: window ", window,
                       ", expected at most ", kIntMaxWindow));
    }
    IntChannelScales channels(NumChannels(out.size()));
    if (options_.has_channels) {
      channels.Read(payload.data() + (HasWindow() ? 1 : 0));
    }
    const IntBlockCoder coder(options_.block, window);
    const IntLayout layout = LayoutOf(out.size());
    const Places places = PlacesOf(layout, out.size());
    const uint8_t* packed = payload.data() + places.codes;
    alignas(64) float scratch[kIntMaxBlock];
    for (int64_t i = 0; i < layout.num_blocks(); ++i) {
      const IntLayout::Block block = layout.At(i);
      IntBlockFields fields;
      const int64_t scale_bytes = IntScaleFieldBytes(options_.block);
      std::memcpy(&fields.scale,
                  payload.data() + places.scales + i * scale_bytes,
                  scale_bytes);
      if (options_.block.is_affine) {
        std::memcpy(&fields.origin,
                    payload.data() + places.origins + i * kOriginBytes,
                    kOriginBytes);
      }
      if (block.count < options_.block.format.block &&
          !coder.UnusedBitsAreZero(fields, packed, block.count)) {
        return absl::InvalidArgumentError(
            absl::StrCat("decode with ", text_,
                         " failed: unused bits of block ", i, " are not 0"));
      }
      if (IsPlain(block)) {
        coder.Decode(fields, packed, out.subspan(block.begin, block.count));
      } else {
        coder.Decode(fields, packed, absl::MakeSpan(scratch, block.count));
        Scatter(block, channels, scratch, out);
      }
      packed += CodeBytes(block.count);
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    const IntFormat& format = options_.block.format;
    Traits traits;
    traits.is_unbiased = format.is_stochastic;
    traits.is_stochastic = format.is_stochastic;
    traits.has_memory = options_.has_channels;
    traits.bits_per_element =
        format.bits + 8.0 * FieldBytes() / static_cast<double>(format.block);
    return traits;
  }

  double ErrorBound(double block_max) const override {
    return options_.has_channels ? std::numeric_limits<double>::infinity()
                                 : BlockErrorBound(block_max);
  }

  // A value is at most sqrt(n) times its channel's root mean square, and a
  // channel's scale within 4.5 % of that.
  double TensorErrorBound(double tensor_max,
                          int64_t num_elements) const override {
    if (!options_.has_channels) return BlockErrorBound(tensor_max);
    const double largest_scale = 1.05 * std::max(tensor_max, 0x1p-126);
    return largest_scale *
           BlockErrorBound(1.05 * std::sqrt(static_cast<double>(num_elements)));
  }

 private:
  /// Where in the payload they begin.
  struct Places {
    int64_t scales;
    int64_t origins;
    int64_t codes;
  };

  bool HasWindow() const {
    return options_.block.field == IntScaleField::kLog8;
  }
  int64_t NumChannels(int64_t num_elements) const {
    if (!options_.has_channels) return 0;
    return options_.row == 0 ? 1 : std::min(options_.row, num_elements);
  }
  int64_t HeadBytes(int64_t num_elements) const {
    return (HasWindow() ? 1 : 0) +
           (options_.has_channels ? IntChannelBytes(NumChannels(num_elements))
                                  : 0);
  }
  int64_t FieldBytes() const {
    return IntScaleFieldBytes(options_.block) +
           (options_.block.is_affine ? kOriginBytes : 0);
  }
  int64_t CodeBytes(int64_t count) const {
    return IntBlockCodeBytes(options_.block, count);
  }
  IntLayout LayoutOf(int64_t num_elements) const {
    return IntLayout(num_elements, options_.block.format.block,
                     options_.is_by_column ? options_.row : 0);
  }
  Places PlacesOf(const IntLayout& layout, int64_t num_elements) const {
    Places places;
    places.scales = HeadBytes(num_elements);
    places.origins = places.scales +
                     layout.num_blocks() * IntScaleFieldBytes(options_.block);
    places.codes = places.scales + layout.num_blocks() * FieldBytes();
    return places;
  }
  bool IsPlain(const IntLayout::Block& block) const {
    return block.stride == 1 && !options_.has_channels;
  }

  // Calls function(i, element, channel) for the values of a block, in order.
  template <class Function>
  void ForEach(const IntLayout::Block& block, Function function) const {
    const int64_t row = options_.row;
    int64_t channel = row == 0 ? 0 : block.begin % row;
    const int64_t channel_step = row == 0 ? 0 : block.stride % row;
    for (int64_t i = 0; i < block.count; ++i) {
      function(i, block.begin + i * block.stride, channel);
      channel += channel_step;
      if (row != 0 && channel >= row) channel -= row;
    }
  }

  absl::Span<const float> Gather(const IntLayout::Block& block,
                                 const IntChannelScales& channels,
                                 absl::Span<const float> in,
                                 float* scratch) const {
    if (IsPlain(block)) return in.subspan(block.begin, block.count);
    if (!options_.has_channels) {
      for (int64_t i = 0; i < block.count; ++i) {
        scratch[i] = in[block.begin + i * block.stride];
      }
    } else {
      ForEach(block, [&](int64_t i, int64_t element, int64_t channel) {
        scratch[i] =
            static_cast<float>(in[element] * channels.inverse(channel));
      });
    }
    return absl::MakeConstSpan(scratch, block.count);
  }

  void Scatter(const IntLayout::Block& block, const IntChannelScales& channels,
               const float* scratch, absl::Span<float> out) const {
    if (!options_.has_channels) {
      for (int64_t i = 0; i < block.count; ++i) {
        out[block.begin + i * block.stride] = scratch[i];
      }
      return;
    }
    ForEach(block, [&](int64_t i, int64_t element, int64_t channel) {
      const double value = scratch[i] * channels.scale(channel);
      // Keeps a NaN.
      out[element] = static_cast<float>(
          std::min(std::max(value, -double{FLT_MAX}), double{FLT_MAX}));
    });
  }

  // Of each channel; blocks that are not finite count as zeros.
  void SumMeanSquares(const IntLayout& layout, absl::Span<const float> in,
                      std::vector<double>* mean_squares) const {
    const int64_t num_channels = NumChannels(in.size());
    std::vector<double>& squares = *mean_squares;
    squares.assign(num_channels, 0.0);
    for (int64_t k = 0; k < layout.num_blocks(); ++k) {
      const IntLayout::Block block = layout.At(k);
      bool is_finite = true;
      ForEach(block, [&](int64_t, int64_t element, int64_t) {
        is_finite &= std::fabs(in[element]) <= FLT_MAX;
      });
      if (!is_finite) continue;
      ForEach(block, [&](int64_t, int64_t element, int64_t channel) {
        squares[channel] += double{in[element]} * in[element];
      });
    }
    const int64_t rows = static_cast<int64_t>(in.size()) / num_channels;
    const int64_t rest = static_cast<int64_t>(in.size()) % num_channels;
    for (int64_t c = 0; c < num_channels; ++c) {
      squares[c] /= static_cast<double>(rows + (c < rest ? 1 : 0));
    }
  }

  // Of logarithmic scales in the worst case, a block far from the payload's
  // window; of others up to their rounding to bf16, which a margin of 1.01 on
  // the values and one on the scales cover.
  double BlockErrorBound(double block_max) const {
    constexpr double kSmallestUnit = 0x1p-126;
    constexpr double kMargin = 1.01;
    const IntFormat& format = options_.block.format;
    const bool is_affine = options_.block.is_affine;
    const double half_range = std::ldexp(1.0, format.bits - 1);
    const double range = (is_affine ? 2 : 1) * block_max * kMargin;
    // Of units from the lowest level to the farthest value.
    const double levels = is_affine              ? 2 * half_range - 1
                          : format.searches_clip ? half_range
                          : format.bits == 1     ? 1
                          : format.bits == 2     ? 3
                                                 : half_range - 1;
    double unit = range / levels;
    if (HasWindow()) {
      // Powers of 16; above the last of them comes the largest float.
      unit = unit > 0x1p118 ? std::max(unit, double{FLT_MAX}) : 16 * unit;
    }
    unit = std::max(unit * kMargin, kSmallestUnit);
    if (format.searches_clip) {
      // As in int.cc; affine blocks have a level near their least value.
      const double of_search =
          std::sqrt(static_cast<double>(format.block)) *
          std::min(unit / 2, is_affine ? range * kMargin : unit / 2);
      const bool is_computed = format.model != IntClipModel::kNone;
      if (is_affine) {
        return (is_computed ? std::max(of_search, range * kMargin)
                            : of_search) +
               kSmallestUnit;
      }
      return (format.bits <= 2 || is_computed
                  ? block_max
                  : std::min(block_max, of_search)) *
                 kMargin +
             kSmallestUnit;
    }
    const double step = (!is_affine && format.bits <= 2 ? 2 : 1) * unit;
    return format.is_stochastic ? step : step / 2;
  }

  const std::string text_;
  const IntGeneralOptions options_;
};

}  // namespace

std::unique_ptr<Codec> MakeGeneralIntCodec(std::string text,
                                           const IntGeneralOptions& options) {
  return std::make_unique<GeneralIntCodec>(std::move(text), options);
}

}  // namespace deltapipe
