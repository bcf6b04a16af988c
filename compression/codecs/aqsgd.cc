#include "compression/codecs/aqsgd.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/bit_packing.h"
#include "compression/kernels/channel_quantize.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

constexpr uint16_t kFloat16Infinity = 0x7C00;
constexpr uint16_t kFloat16NaN = 0x7E00;
constexpr float kLargestFloat16 = 65504;
constexpr size_t kChunk = 1024;  // codes on the stack; a multiple of 8

// Sixteen channels that share the work of one.
float LargestMagnitude(absl::Span<const float> in) {
  std::array<float, 16> lanes{};
  for (size_t begin = 0; begin < in.size(); begin += lanes.size()) {
    UpdateChannelMaxima(in.subspan(begin, lanes.size()), absl::MakeSpan(lanes));
  }
  float largest = 0;
  for (const float lane : lanes) {
    UpdateChannelMaxima({lane}, absl::MakeSpan(&largest, 1));
  }
  return largest;
}

// Calls function(begin, end, channel) for the runs of elements that lie in one
// chunk and one row, in order; `channel` is that of the first. One channel is
// in as many rows as there are chunks.
template <class Function>
void ForEachRun(size_t num_elements, size_t num_channels, Function function) {
  size_t channel = 0;
  for (size_t begin = 0; begin < num_elements;) {
    size_t end = std::min(begin + kChunk - begin % kChunk, num_elements);
    if (num_channels > 1) end = std::min(end, begin + num_channels - channel);
    function(begin, end, channel);
    if (num_channels > 1) channel = (channel + end - begin) % num_channels;
    begin = end;
  }
}

class AqsgdCodec final : public Codec {
 public:
  AqsgdCodec(std::string text, int bits, int64_t row)
      : text_(std::move(text)), bits_(bits), row_(row) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return 2 * NumChannels(num_elements) + (num_elements * bits_ + 7) / 8;
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& /*key*/,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    ThreadScratch<float> channels;
    WriteScales(in, out.data(), &*channels);
    const absl::Span<const float> divisors = *channels;
    const uint8_t* const stream_end = out.data() + size;
    uint8_t* stream = out.data() + 2 * divisors.size();
    const float half = static_cast<float>(1 << (bits_ - 1));
    uint8_t codes[kChunk];
    ForEachRun(in.size(), divisors.size(),
               [&](size_t begin, size_t end, size_t channel) {
                 ChannelCodes(in.subspan(begin, end - begin),
                              divisors.subspan(channel), half,
                              codes + begin % kChunk);
                 if (end % kChunk != 0 && end != in.size()) return;
                 const size_t count = (end - 1) % kChunk + 1;
                 PackCodes(bits_, codes, count, stream, stream_end);
                 stream += kChunk / 8 * bits_;
               });
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t size = MaxPayloadBytes(out.size());
    DP_RETURN_IF_ERROR(
        CheckPayloadSize(text_, out.size(), size, payload.size()));
    if (out.empty()) return absl::OkStatus();
    DP_RETURN_IF_ERROR(CheckUnusedBits(
        text_, static_cast<int64_t>(out.size()) * bits_, payload.back()));
    ThreadScratch<float> channels;
    DP_RETURN_IF_ERROR(ReadScales(payload, out.size(), &*channels));
    const absl::Span<const float> scales = *channels;
    const uint8_t* stream = payload.data() + 2 * scales.size();
    const uint8_t* const stream_end = payload.data() + size;
    const float half = static_cast<float>(1 << (bits_ - 1));
    uint8_t codes[kChunk];
    ForEachRun(out.size(), scales.size(),
               [&](size_t begin, size_t end, size_t channel) {
                 if (begin % kChunk == 0) {
                   UnpackCodes(bits_, stream, stream_end,
                               std::min(kChunk, out.size() - begin), codes);
                   stream += kChunk / 8 * bits_;
                 }
                 ChannelValues(codes + begin % kChunk, scales.subspan(channel),
                               half, out.subspan(begin, end - begin));
               });
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.bits_per_element = bits_;
    return traits;
  }

  // A step of s / h, lost whole at the clipped end; what s and the divisor are
  // rounded by; what fp16 cannot hold.
  double ErrorBound(double block_max) const override {
    const double half = std::ldexp(1.0, bits_ - 1);
    const double within =
        block_max / half * (1 + 0x1p-10) + block_max * 0x1p-10 + 1.2e-6;
    const double beyond = block_max - kLargestFloat16 + kLargestFloat16 / half;
    return block_max > kLargestFloat16 ? std::max(within, beyond * (1 + 1e-6))
                                       : within;
  }

 private:
  int64_t NumChannels(int64_t num_elements) const {
    return std::min(num_elements, row_ == 0 ? int64_t{1} : row_);
  }

  // Writes the scales, and to `divisors` what each channel is divided by: NaN
  // for one with a NaN or an infinity.
  void WriteScales(absl::Span<const float> in, uint8_t* scales,
                   std::vector<float>* divisors) const {
    const size_t num_channels = NumChannels(in.size());
    std::vector<float>& channels = *divisors;
    channels.assign(num_channels, 0);
    if (num_channels == 1) {
      channels[0] = LargestMagnitude(in);
    } else {
      for (size_t begin = 0; begin < in.size(); begin += num_channels) {
        UpdateChannelMaxima(in.subspan(begin, num_channels),
                            absl::MakeSpan(channels));
      }
    }
    for (float& channel : channels) {
      const uint16_t scale =
          std::isfinite(channel) ? FloatToFloat16(channel) : kFloat16NaN;
      std::memcpy(scales, &scale, sizeof(scale));
      scales += sizeof(scale);
      channel = Float16ToFloat(FloatToFloat16(Float16ToFloat(scale) + 1e-6f));
    }
  }

  absl::Status ReadScales(absl::Span<const uint8_t> payload,
                          int64_t num_elements,
                          std::vector<float>* channels) const {
    std::vector<float>& scales = *channels;
    scales.resize(NumChannels(num_elements));
    for (size_t i = 0; i < scales.size(); ++i) {
      uint16_t scale;
      std::memcpy(&scale, payload.data() + 2 * i, sizeof(scale));
      if (scale >= kFloat16Infinity && scale != kFloat16NaN) {
        return absl::InvalidArgumentError(absl::StrCat(
            "decode with ", text_, " failed: the scale of channel ", i, " is ",
            Float16ToFloat(scale),
            ", expected a finite value >= 0 or a positive NaN"));
      }
      scales[i] = Float16ToFloat(scale);
    }
    return absl::OkStatus();
  }

  const std::string text_;
  const int bits_;
  const int64_t row_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("bits", "", 1, 8, "bits per value"),
    ExtentParameter("row", 1, "channels per row; 0: one channel"),
};

}  // namespace

absl::Span<const CodecParameter> AqsgdParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeAqsgdCodec(
    const CodecArguments& arguments) {
  return std::unique_ptr<Codec>(new AqsgdCodec(
      arguments.CanonicalText(), static_cast<int>(arguments.Integer("bits")),
      arguments.Integer("row")));
}

}  // namespace deltapipe
