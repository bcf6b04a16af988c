#include "compression/codecs/hadamard.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/bit_packing.h"
#include "compression/kernels/thread_scratch.h"
#include "compression/kernels/tile_rotation.h"

namespace deltapipe {
namespace {

constexpr size_t kChunk = 1024;  // fields on the stack; a multiple of 8

class HadamardCodec final : public Codec {
 public:
  HadamardCodec(std::string text, std::unique_ptr<Codec> codec, int tile,
                double threshold)
      : text_(std::move(text)),
        codec_(std::move(codec)),
        tile_(tile),
        field_bits_(std::ilogb(tile) + 1),
        threshold_(threshold) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return FieldBytes(num_elements) + codec_->MaxPayloadBytes(num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    return EncodeNext(in, key, nullptr, out);
  }

  // Memory is the inner codec's.
  absl::StatusOr<int64_t> EncodeNext(absl::Span<const float> in,
                                     const RandomKey& key,
                                     std::vector<float>* memory,
                                     absl::Span<uint8_t> out) const override {
    DP_RETURN_IF_ERROR(
        CheckRoom(text_, MaxPayloadBytes(in.size()), out.size()));
    const int64_t field_bytes = FieldBytes(in.size());
    ThreadScratch<float> rotated;
    rotated->assign(in.begin(), in.end());
    const size_t num_tiles = in.size() / tile_;
    uint8_t fields[kChunk];
    uint8_t* stream = out.data();
    for (size_t t = 0; t < num_tiles; ++t) {
      fields[t % kChunk] =
          Rotate(absl::MakeSpan(*rotated).subspan(t * tile_, tile_));
      if ((t + 1) % kChunk == 0 || t + 1 == num_tiles) {
        PackCodes(field_bits_, fields, t % kChunk + 1, stream,
                  out.data() + field_bytes);
        stream += kChunk / 8 * field_bits_;
      }
    }
    const absl::Span<uint8_t> rest = out.subspan(field_bytes);
    DP_ASSIGN_OR_RETURN(const int64_t size,
                        memory == nullptr
                            ? codec_->Encode(*rotated, key, rest)
                            : codec_->EncodeNext(*rotated, key, memory, rest));
    return field_bytes + size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t payload_size = payload.size();
    const int64_t field_bytes = FieldBytes(out.size());
    if (traits().has_fixed_size || payload_size < field_bytes) {
      DP_RETURN_IF_ERROR(CheckPayloadSize(
          text_, out.size(), MaxPayloadBytes(out.size()), payload_size));
    }
    const size_t num_tiles = out.size() / tile_;
    if (num_tiles > 0) {
      DP_RETURN_IF_ERROR(
          CheckUnusedBits(text_, static_cast<int64_t>(num_tiles) * field_bits_,
                          payload[field_bytes - 1]));
    }
    DP_RETURN_IF_ERROR(codec_->Decode(payload.subspan(field_bytes), out));
    const uint8_t* stream = payload.data();
    uint8_t fields[kChunk];
    for (size_t t = 0; t < num_tiles; ++t) {
      if (t % kChunk == 0) {
        UnpackCodes(field_bits_, stream, payload.data() + field_bytes,
                    std::min(kChunk, num_tiles - t), fields);
        stream += kChunk / 8 * field_bits_;
      }
      const int field = fields[t % kChunk];
      if (field == 0) continue;
      if (field > tile_) {
        return absl::InvalidArgumentError(absl::StrCat(
            "decode with ", text_, " failed: tile ", t, " has the field ",
            field, ", expected at most ", tile_));
      }
      const absl::Span<float> tile = out.subspan(t * tile_, tile_);
      RotateTile(tile);
      std::swap(tile[0], tile[field - 1]);
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits = codec_->traits();
    traits.is_lossless = false;
    // Of a lossless one the rotation's roundings are left.
    traits.is_unbiased = traits.is_stochastic && traits.is_unbiased;
    traits.bits_per_element += static_cast<double>(field_bits_) / tile_;
    return traits;
  }

  double ErrorBound(double block_max) const override {
    const double spread = std::sqrt(tile_) * block_max;
    return FromRotated(block_max, codec_->ErrorBound(block_max),
                       codec_->ErrorBound(spread));
  }

  double TensorErrorBound(double tensor_max,
                          int64_t num_elements) const override {
    const double spread = std::sqrt(tile_) * tensor_max;
    return FromRotated(tensor_max,
                       codec_->TensorErrorBound(tensor_max, num_elements),
                       codec_->TensorErrorBound(spread, num_elements));
  }

 private:
  int64_t FieldBytes(int64_t num_elements) const {
    return (num_elements / tile_ * field_bits_ + 7) / 8;
  }

  // A tile of errors within e has the norm sqrt(tile) e, and so has the rotated
  // one. Each butterfly of both rotations rounds by 2^-24 of at most
  // sqrt(tile) times the largest value, before the division by sqrt(tile).
  double FromRotated(double max, double error, double rotated_error) const {
    const double rounding = 2 * (field_bits_ + 1) * tile_ * 0x1p-24;
    return std::max(
        error, std::sqrt(tile_) * rotated_error * (1 + 1e-6) + rounding * max);
  }

  // Returns the tile's field.
  uint8_t Rotate(absl::Span<float> tile) const {
    const int outlier = FindOutlier(tile, threshold_);
    if (outlier < 0) return 0;
    std::swap(tile[0], tile[outlier]);
    RotateTile(tile);
    return static_cast<uint8_t>(outlier + 1);
  }

  const std::string text_;
  const std::unique_ptr<Codec> codec_;
  const int tile_;
  const int field_bits_;
  const double threshold_;
};

constexpr CodecParameter kParameters[] = {
    InnerCodecParameter("codec", "", "for the values, rotated or not"),
    ChoiceParameter("tile", "32", "8|16|32|64|128", "values of a tile"),
    NumberParameter("threshold", "2", 0, 1e6,
                    "how many times the second largest an outlier is"),
};

}  // namespace

absl::Span<const CodecParameter> HadamardParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeHadamardCodec(
    const CodecArguments& arguments) {
  DP_ASSIGN_OR_RETURN(std::unique_ptr<Codec> codec,
                      MakeCodecFromSpec(arguments.Codec("codec")));
  int tile = 0;
  // One of the choices: always a number.
  (void)absl::SimpleAtoi(arguments.Word("tile"), &tile);
  return std::unique_ptr<Codec>(
      new HadamardCodec(arguments.CanonicalText(), std::move(codec), tile,
                        arguments.Number("threshold")));
}

}  // namespace deltapipe
