#include "compression/codecs/error_bound.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/little_endian.h"
#include "base/status_macros.h"
#include "compression/codecs/error_bound_chunks.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"

namespace deltapipe {
namespace {

constexpr int64_t kHeadBytes = 12;
constexpr int64_t kChunkHeadBytes = 4;
constexpr size_t kChunk = kErrorBoundChunk;

float RoundDown(double value) {
  const auto narrow = static_cast<float>(std::min(value, double{FLT_MAX}));
  return narrow > value ? std::nextafter(narrow, 0.0f) : narrow;
}

// Of one normal value rounded to multiples of `step`, in bits.
double EntropyOfNormal(double step) {
  if (step < 0.01) return std::log2(4.1327313541224930 / step);
  double entropy = 0;
  for (int q = -4500; q <= 4500; ++q) {
    const double low = (std::abs(q) - 0.5) * step, high = low + step;
    const double p =
        (std::erfc(low / std::sqrt(2.0)) - std::erfc(high / std::sqrt(2.0))) /
        2;
    if (p > 0) entropy -= p * std::log2(p);
  }
  return entropy;
}

class ErrorBoundCodec final : public Codec {
 public:
  ErrorBoundCodec(std::string text, bool is_relative, double bound, int level)
      : text_(std::move(text)),
        is_relative_(is_relative),
        bound_(bound),
        level_(level),
        // The largest of many normal values is about 4.3. Planes and Huffman
        // codes of whole bits cost a little.
        expected_bits_(std::min(
            32.0, 0.1 + 1.02 * EntropyOfNormal(2 * bound *
                                               (is_relative ? 4.3 : 1)))) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    if (num_elements == 0) return 0;
    const int64_t num_chunks = (num_elements - 1) / int64_t{kChunk} + 1;
    return kHeadBytes + num_chunks * kChunkHeadBytes +
           num_elements * static_cast<int64_t>(sizeof(float));
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& /*key*/,
                                 absl::Span<uint8_t> out) const override {
    DP_RETURN_IF_ERROR(
        CheckRoom(text_, MaxPayloadBytes(in.size()), out.size()));
    if (in.empty()) return int64_t{0};
    const float bound = BoundFor(in);
    ErrorBoundChunkEncoder encoder(bound, level_, in.size());
    uint8_t* at = out.data() + kHeadBytes;
    for (size_t begin = 0; begin < in.size(); begin += kChunk) {
      at = encoder.Encode(in.subspan(begin, kChunk), at);
    }
    const float head[3] = {
        bound, static_cast<float>(encoder.max_error()),
        static_cast<float>(std::min(
            encoder.sum_of_squared_errors() / static_cast<double>(in.size()),
            double{FLT_MAX}))};
    std::memcpy(out.data(), head, sizeof(head));
    return at - out.data();
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    if (out.empty()) {
      return CheckPayloadSize(text_, 0, 0, payload.size());
    }
    DP_ASSIGN_OR_RETURN(const ErrorBoundStatistics head,
                        ReadErrorBoundStatistics(payload));
    if (payload.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decode with ", text_, " failed: payload of 0 bytes for ", out.size(),
          " elements"));
    }
    payload.remove_prefix(kHeadBytes);
    ErrorBoundChunkDecoder decoder(static_cast<float>(head.bound), out.size());
    for (size_t begin = 0; begin < out.size(); begin += kChunk) {
      if (payload.size() < kChunkHeadBytes) {
        return Damaged(begin, out.size(), "cut off");
      }
      const auto word = LoadLittleEndian<uint32_t>(payload.data());
      payload.remove_prefix(kChunkHeadBytes);
      const uint32_t kind = word % 4;
      const size_t size = word / 4;
      if (kind > 2 || size > payload.size()) {
        return Damaged(begin, out.size(),
                       absl::StrCat("kind ", kind, ", ", size, " bytes of ",
                                    payload.size()));
      }
      const std::string error =
          decoder.Decode(static_cast<ErrorBoundChunkKind>(kind),
                         payload.first(size), out.subspan(begin, kChunk));
      if (!error.empty()) return Damaged(begin, out.size(), error);
      payload.remove_prefix(size);
    }
    if (payload.empty()) return absl::OkStatus();
    return Damaged(out.size(), out.size(),
                   absl::StrCat(payload.size(), " bytes too many"));
  }

  Traits traits() const override {
    Traits traits;
    traits.has_fixed_size = false;
    traits.bits_per_element = expected_bits_;
    return traits;
  }

  double ErrorBound(double block_max) const override {
    return is_relative_ ? bound_ * block_max : bound_;
  }

 private:
  float BoundFor(absl::Span<const float> in) const {
    if (!is_relative_) return RoundDown(bound_);
    float max = 0;
    for (const float value : in) {
      if (std::isfinite(value)) max = std::max(max, std::fabs(value));
    }
    return RoundDown(bound_ * max);
  }

  absl::Status Damaged(int64_t element, int64_t num_elements,
                       absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("decode with ", text_, " failed: the chunk of element ",
                     element, " of ", num_elements, ": ", what));
  }

  const std::string text_;
  const bool is_relative_;
  const double bound_;
  const int level_;
  const double expected_bits_;
};

constexpr CodecParameter AbsoluteBound() {
  CodecParameter parameter = NumberParameter(
      "abs", "off", 0, 3.4e38, "bound of every element's error; then no `rel`");
  parameter.choices = "off";
  return parameter;
}

constexpr double kDefaultRelativeBound = 0.001;

constexpr CodecParameter kParameters[] = {
    AbsoluteBound(),
    NumberParameter("rel", "0.001", 0, 1,
                    "the bound as a share of the largest magnitude"),
    IntegerParameter("level", "3", 1, 19, "of zstd: larger is slower"),
};

}  // namespace

absl::StatusOr<ErrorBoundStatistics> ReadErrorBoundStatistics(
    absl::Span<const uint8_t> payload) {
  ErrorBoundStatistics statistics;
  if (payload.empty()) return statistics;
  float head[3] = {-1, -1, -1};
  if (payload.size() >= sizeof(head)) {
    std::memcpy(head, payload.data(), sizeof(head));
  }
  statistics.bound = head[0];
  statistics.max_error = head[1];
  statistics.mean_square_error = head[2];
  const bool is_possible = head[0] >= 0 && head[0] <= FLT_MAX && head[1] >= 0 &&
                           head[1] <= head[0] && head[2] >= 0 &&
                           head[2] <= FLT_MAX;
  if (is_possible) return statistics;
  return absl::InvalidArgumentError(absl::StrCat(
      "error_bound payload of ", payload.size(), " bytes: bound ", head[0],
      ", largest error ", head[1], ", mean square error ", head[2],
      ", expected finite values >= 0, the second at most the first"));
}

absl::Span<const CodecParameter> ErrorBoundParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeErrorBoundCodec(
    const CodecArguments& arguments) {
  const bool is_relative = arguments.IsWord("abs");
  if (!is_relative && arguments.Number("rel") != kDefaultRelativeBound) {
    DP_ASSIGN_OR_RETURN(const CodecSpec spec,
                        ParseCodecSpec(arguments.CanonicalText()));
    return CodecSpecError(spec, "error_bound: expected abs or rel, got both");
  }
  return std::unique_ptr<Codec>(
      new ErrorBoundCodec(arguments.CanonicalText(), is_relative,
                          arguments.Number(is_relative ? "rel" : "abs"),
                          static_cast<int>(arguments.Integer("level"))));
}

}  // namespace deltapipe
