#include "compression/codecs/nonzero.h"

#include <algorithm>
#include <cfloat>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/nonzero_bits.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

constexpr uint8_t kNoNegatives = 0;
constexpr uint8_t kSigns = 1;

void PackNegatives(absl::Span<const float> values, uint8_t* bits) {
  for (size_t begin = 0; begin < values.size(); begin += 8) {
    const size_t count = std::min<size_t>(8, values.size() - begin);
    uint32_t byte = 0;
    for (size_t i = 0; i < count; ++i) {
      byte |= FloatBits(values[begin + i]) >> 31 << i;
    }
    bits[begin / 8] = static_cast<uint8_t>(byte);
  }
}

// A float that resize() leaves as it finds it: what is not zero is written
// before it is read, and large tensors would notice a pass more.
struct UnsetFloat {
  UnsetFloat() {}
  float value;
};
static_assert(sizeof(UnsetFloat) == sizeof(float), "side by side");

// Room for `count` values and the padding of kernels.
class KeptValues {
 public:
  explicit KeptValues(int64_t count) {
    values_->resize(count + kNonzeroPadding);
  }
  float* data() { return &values_->data()->value; }

 private:
  ThreadScratch<UnsetFloat> values_;
};

class NonzeroCodec final : public Codec {
 public:
  NonzeroCodec(std::string text, std::unique_ptr<Codec> codec)
      : text_(std::move(text)), codec_(std::move(codec)) {}

  std::string text() const override { return text_; }

  // With signs and without a zero.
  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    if (num_elements == 0) return 0;
    return 1 + 2 * NonzeroBytes(num_elements) +
           codec_->MaxPayloadBytes(num_elements);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    return EncodeBy(
        in, out, [&](absl::Span<const float> kept, absl::Span<uint8_t> rest) {
          return codec_->Encode(kept, key, rest);
        });
  }

  absl::StatusOr<int64_t> EncodeNext(absl::Span<const float> in,
                                     const RandomKey& key,
                                     std::vector<float>* memory,
                                     absl::Span<uint8_t> out) const override {
    return EncodeBy(
        in, out, [&](absl::Span<const float> kept, absl::Span<uint8_t> rest) {
          return codec_->EncodeNext(kept, key, memory, rest);
        });
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    if (out.empty()) return CheckPayloadSize(text_, 0, 0, payload.size());
    const int64_t num_elements = out.size();
    const int64_t bitmap_bytes = NonzeroBytes(num_elements);
    if (payload.size() < 1 + bitmap_bytes) {
      return TooShort(num_elements, 1 + bitmap_bytes, payload.size());
    }
    const uint8_t kind = payload[0];
    if (kind > kSigns) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_, " failed: kind ", int{kind},
                       ", expected 0 or 1"));
    }
    const uint8_t* const bitmap = payload.data() + 1;
    DP_RETURN_IF_ERROR(
        CheckUnusedBits(text_, num_elements, bitmap[bitmap_bytes - 1]));
    const int64_t num_kept = CountNonzero(bitmap, num_elements);
    const int64_t sign_bytes = kind == kSigns ? NonzeroBytes(num_kept) : 0;
    const int64_t head_bytes = 1 + bitmap_bytes + sign_bytes;
    if (payload.size() < head_bytes) {
      return TooShort(num_elements, head_bytes, payload.size());
    }
    const uint8_t* const signs = bitmap + bitmap_bytes;
    if (sign_bytes > 0) {
      DP_RETURN_IF_ERROR(
          CheckUnusedBits(text_, num_kept, signs[sign_bytes - 1]));
    }
    KeptValues kept(num_kept);
    const auto values = absl::MakeSpan(kept.data(), num_kept);
    DP_RETURN_IF_ERROR(codec_->Decode(payload.subspan(head_bytes), values));
    KeepSigns(kind == kSigns ? signs : nullptr, values);
    // The last loads of SpreadNonzero see the padding.
    std::fill_n(kept.data() + num_kept, kNonzeroPadding, 0.0f);
    SpreadNonzero(bitmap, kept.data(), out);
    return absl::OkStatus();
  }

  Traits traits() const override {
    const Traits inner = codec_->traits();
    Traits traits;
    traits.has_fixed_size = false;
    traits.is_lossless = inner.is_lossless;
    traits.is_random = inner.is_random || inner.is_stochastic;
    traits.has_memory = inner.has_memory;
    traits.bits_per_element = 2 + inner.bits_per_element;
    return traits;
  }

  // What changes its sign or vanishes comes back nearer to what it was, or by
  // the smallest normal number.
  double ErrorBound(double block_max) const override {
    return WithSmallest(codec_->ErrorBound(block_max));
  }

  double TensorErrorBound(double tensor_max,
                          int64_t num_elements) const override {
    return WithSmallest(codec_->TensorErrorBound(tensor_max, num_elements));
  }

 private:
  double WithSmallest(double bound) const {
    return codec_->traits().is_lossless ? bound
                                        : std::max(bound, double{FLT_MIN});
  }

  template <class EncodeKept>
  absl::StatusOr<int64_t> EncodeBy(absl::Span<const float> in,
                                   absl::Span<uint8_t> out,
                                   EncodeKept encode_kept) const {
    DP_RETURN_IF_ERROR(
        CheckRoom(text_, MaxPayloadBytes(in.size()), out.size()));
    if (in.empty()) return int64_t{0};
    KeptValues kept(in.size());
    const TakenNonzero taken = TakeNonzero(in, out.data() + 1, kept.data());
    const auto values = absl::MakeConstSpan(kept.data(), taken.count);
    int64_t size = 1 + NonzeroBytes(in.size());
    out[0] = taken.has_negative ? kSigns : kNoNegatives;
    if (taken.has_negative) {
      PackNegatives(values, out.data() + size);
      size += NonzeroBytes(taken.count);
    }
    DP_ASSIGN_OR_RETURN(const int64_t inner_size,
                        encode_kept(values, out.subspan(size)));
    return size + inner_size;
  }

  absl::Status TooShort(int64_t num_elements, int64_t expected,
                        int64_t actual) const {
    return absl::InvalidArgumentError(
        absl::StrCat("decode with ", text_, " failed: payload of ", actual,
                     " bytes, expected at least ", expected, " for ",
                     num_elements, " elements"));
  }

  const std::string text_;
  const std::unique_ptr<Codec> codec_;
};

constexpr CodecParameter kParameters[] = {
    InnerCodecParameter("codec", "", "for the values that are not zero"),
};

}  // namespace

absl::Span<const CodecParameter> NonzeroParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeNonzeroCodec(
    const CodecArguments& arguments) {
  DP_ASSIGN_OR_RETURN(std::unique_ptr<Codec> codec,
                      MakeCodecFromSpec(arguments.Codec("codec")));
  return std::unique_ptr<Codec>(
      new NonzeroCodec(arguments.CanonicalText(), std::move(codec)));
}

}  // namespace deltapipe
