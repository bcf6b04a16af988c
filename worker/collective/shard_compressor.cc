#include "worker/collective/shard_compressor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"
#include "compression/kernels/sign_bits.h"
#include "worker/collective/onebit_compressor.h"

namespace deltapipe {
namespace {

// Little-endian on the wire, as every machine that this code runs on.
constexpr int64_t kScaleBytes = 4;

void WriteScale(float scale, absl::Span<uint8_t> out) {
  std::memcpy(out.data(), &scale, kScaleBytes);
}

float ReadScale(absl::Span<const uint8_t> message) {
  float scale;
  std::memcpy(&scale, message.data(), kScaleBytes);
  return scale;
}

absl::Status CheckSize(absl::Span<const uint8_t> message, int64_t expected,
                       size_t num_elements) {
  if (static_cast<int64_t>(message.size()) == expected) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("message of ", message.size(), " bytes, expected ", expected,
                   " for ", num_elements, " elements"));
}

/// values <- values + residual, if there is one; the root mean square of what
/// is counted in the sum, 0 for nothing.
float AddedRms(absl::Span<float> values, absl::Span<const float> residual,
               int64_t num_counted) {
  if (values.empty()) return 0;
  const double squares = residual.empty()
                             ? SumOfSquares(values)
                             : AddAndSumOfSquares(values, residual);
  // Where nothing counts all is zero, but for values that are not finite.
  return static_cast<float>(std::sqrt(
      squares / static_cast<double>(std::max<int64_t>(num_counted, 1))));
}

class IdentityCompressor : public ShardCompressor {
 public:
  std::string text() const override { return "identity"; }
  int64_t MaxMessageBytes(int64_t num_elements) const override {
    return num_elements * 4;
  }
  void AddResidual(absl::Span<float> values, absl::Span<const float> residual,
                   int64_t num_counted) override {
    // Zero, unless another codec has left some.
    for (size_t i = 0; i < residual.size(); ++i) values[i] += residual[i];
  }

  absl::StatusOr<int64_t> Encode(absl::Span<float> shard, const RandomKey& key,
                                 absl::Span<uint8_t> out) override {
    const size_t size = shard.size() * sizeof(float);
    if (size > 0) std::memcpy(out.data(), shard.data(), size);
    std::fill(shard.begin(), shard.end(), 0.0f);
    return static_cast<int64_t>(size);
  }

  absl::Status AccumulateMean(absl::Span<const uint8_t> message, int num_ranks,
                              absl::Span<float> mean) override {
    decoded_.resize(mean.size());
    DP_RETURN_IF_ERROR(Decode(message, absl::MakeSpan(decoded_)));
    const float divisor = static_cast<float>(num_ranks);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += decoded_[i] / divisor;
    return absl::OkStatus();
  }

  absl::Status Decode(absl::Span<const uint8_t> message,
                      absl::Span<float> out) override {
    DP_RETURN_IF_ERROR(CheckSize(
        message, static_cast<int64_t>(out.size() * sizeof(float)), out.size()));
    if (!out.empty()) std::memcpy(out.data(), message.data(), message.size());
    return absl::OkStatus();
  }

 private:
  std::vector<float> decoded_;
};

class SignCompressor : public ShardCompressor {
 public:
  std::string text() const override { return "sign(block=0)"; }
  int64_t MaxMessageBytes(int64_t num_elements) const override {
    return kScaleBytes + SignBytes(num_elements);
  }

  void AddResidual(absl::Span<float> values, absl::Span<const float> residual,
                   int64_t num_counted) override {
    scale_ = AddedRms(values, residual, num_counted);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<float> shard, const RandomKey& key,
                                 absl::Span<uint8_t> out) override {
    WriteScale(scale_, out);
    OneBitCompressor<float>::Compress(shard, scale_, out.subspan(kScaleBytes));
    return MaxMessageBytes(static_cast<int64_t>(shard.size()));
  }

  absl::Status AccumulateMean(absl::Span<const uint8_t> message, int num_ranks,
                              absl::Span<float> mean) override {
    DP_RETURN_IF_ERROR(Check(message, mean.size()));
    OneBitCompressor<float>::AccumulateMean(
        message.subspan(kScaleBytes), ReadScale(message), num_ranks, mean);
    return absl::OkStatus();
  }

  absl::Status Decode(absl::Span<const uint8_t> message,
                      absl::Span<float> out) override {
    DP_RETURN_IF_ERROR(Check(message, out.size()));
    OneBitCompressor<float>::Decompress(message.subspan(kScaleBytes),
                                        ReadScale(message), out);
    return absl::OkStatus();
  }

 private:
  absl::Status Check(absl::Span<const uint8_t> message, size_t size) const {
    return CheckSize(message, MaxMessageBytes(static_cast<int64_t>(size)),
                     size);
  }

  float scale_ = 0;
};

class CodecCompressor : public ShardCompressor {
 public:
  CodecCompressor(std::unique_ptr<Codec> codec, bool has_feedback)
      : codec_(std::move(codec)), has_feedback_(has_feedback) {}

  std::string text() const override { return codec_->text(); }
  int64_t MaxMessageBytes(int64_t num_elements) const override {
    return kScaleBytes + codec_->MaxPayloadBytes(num_elements);
  }

  void AddResidual(absl::Span<float> values, absl::Span<const float> residual,
                   int64_t num_counted) override {
    rms_ = AddedRms(values, residual, num_counted);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<float> shard, const RandomKey& key,
                                 absl::Span<uint8_t> out) override {
    WriteScale(rms_, out);
    const absl::Span<uint8_t> payload = out.subspan(kScaleBytes);
    DP_ASSIGN_OR_RETURN(const int64_t size,
                        codec_->Encode(shard, key, payload));
    if (!has_feedback_) return kScaleBytes + size;
    decoded_.resize(shard.size());
    DP_RETURN_IF_ERROR(codec_->Decode(payload.first(static_cast<size_t>(size)),
                                      absl::MakeSpan(decoded_)));
    for (size_t i = 0; i < shard.size(); ++i) shard[i] -= decoded_[i];
    return kScaleBytes + size;
  }

  absl::Status AccumulateMean(absl::Span<const uint8_t> message, int num_ranks,
                              absl::Span<float> mean) override {
    decoded_.resize(mean.size());
    DP_RETURN_IF_ERROR(Decode(message, absl::MakeSpan(decoded_)));
    const float divisor = static_cast<float>(num_ranks);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += decoded_[i] / divisor;
    return absl::OkStatus();
  }

  absl::Status Decode(absl::Span<const uint8_t> message,
                      absl::Span<float> out) override {
    if (static_cast<int64_t>(message.size()) < kScaleBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("message of ", message.size(), " bytes, expected ",
                       kScaleBytes, " or more"));
    }
    DP_RETURN_IF_ERROR(codec_->Decode(message.subspan(kScaleBytes), out));
    if (!std::isfinite(ReadScale(message))) {
      std::fill(out.begin(), out.end(),
                std::numeric_limits<float>::quiet_NaN());
    }
    return absl::OkStatus();
  }

 private:
  const std::unique_ptr<Codec> codec_;
  const bool has_feedback_;
  std::vector<float> decoded_;
  float rms_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ShardCompressor>> ShardCompressor::Create(
    const std::string& text, bool has_feedback) {
  DP_ASSIGN_OR_RETURN(const CodecSpec spec, ParseCodecSpec(text));
  if (spec.name == "identity" && spec.arguments.empty()) {
    return std::unique_ptr<ShardCompressor>(
        std::make_unique<IdentityCompressor>());
  }
  DP_ASSIGN_OR_RETURN(std::unique_ptr<Codec> codec, MakeCodec(text));
  if (codec->text() == "sign(block=0)") {
    return std::unique_ptr<ShardCompressor>(std::make_unique<SignCompressor>());
  }
  return std::unique_ptr<ShardCompressor>(
      std::make_unique<CodecCompressor>(std::move(codec), has_feedback));
}

}  // namespace deltapipe
