#include "worker/saved_activations/host_packer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "ATen/ops/aminmax.h"
#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "compression/codec_spec.h"
#include "worker/saved_activations/bit_mask.h"

namespace deltapipe {
namespace {

using Form = PackedTensor::Form;

absl::Span<uint8_t> BytesOf(const at::Tensor& flat) {
  return {flat.data_ptr<uint8_t>(), static_cast<size_t>(flat.numel())};
}

absl::Span<float> FloatsOf(const at::Tensor& flat) {
  return {flat.data_ptr<float>(), static_cast<size_t>(flat.numel())};
}

uint64_t ChecksumOf(const PackedTensor& packed) {
  const uint64_t of_mask =
      packed.mask.defined() ? Checksum(BytesOf(packed.mask)) : 0;
  const at::Tensor& kept = packed.kept;
  return Checksum({static_cast<const uint8_t*>(kept.const_data_ptr()),
                   static_cast<size_t>(kept.nbytes())},
                  of_mask);
}

absl::Status CheckChecksum(const PackedTensor& packed) {
  const uint64_t checksum = ChecksumOf(packed);
  if (checksum == packed.checksum) return absl::OkStatus();
  return absl::DataLossError(absl::StrFormat(
      "%d packed bytes have the checksum %016x, expected %016x: memory was "
      "overwritten between forward and backward",
      packed.stored_bytes(), checksum, packed.checksum));
}

bool IsFinite(absl::Span<const float> values) {
  constexpr uint32_t kExponent = 0x7F800000u;
  // Without a branch, so that the loop is vectorised; in pieces, so that a NaN
  // at the beginning is found at once.
  for (size_t begin = 0; begin < values.size(); begin += 4096) {
    const size_t end = std::min(begin + 4096, values.size());
    uint32_t not_finite = 0;
    for (size_t i = begin; i < end; ++i) {
      uint32_t bits;
      std::memcpy(&bits, &values[i], sizeof(bits));
      not_finite |= (bits & kExponent) == kExponent ? 1u : 0u;
    }
    if (not_finite != 0) return false;
  }
  return true;
}

at::ScalarType NarrowestType(const at::Tensor& integers) {
  const auto [least, most] = at::aminmax(integers);
  const int64_t low = least.item<int64_t>();
  const int64_t high = most.item<int64_t>();
  if (low >= 0 && high <= 255) return at::kByte;
  if (low >= std::numeric_limits<int16_t>::min() &&
      high <= std::numeric_limits<int16_t>::max()) {
    return at::kShort;
  }
  if (low >= std::numeric_limits<int32_t>::min() &&
      high <= std::numeric_limits<int32_t>::max()) {
    return at::kInt;
  }
  return at::kLong;
}

}  // namespace

absl::StatusOr<std::optional<PackedTensor>> HostPacker::PackExactly(
    const at::Tensor& flat) {
  if (flat.scalar_type() == at::kBool) {
    const at::Tensor bools = flat.contiguous();
    PackedTensor packed = PackedTensor::Of(Form::kBits, flat);
    packed.kept = at::empty({BitMaskBytes(bools.numel())}, at::kByte);
    PackBits({reinterpret_cast<const uint8_t*>(bools.data_ptr<bool>()),
              static_cast<size_t>(bools.numel())},
             BytesOf(packed.kept));
    packed.checksum = ChecksumOf(packed);
    return packed;
  }
  const at::ScalarType narrow = NarrowestType(flat);
  if (c10::elementSize(narrow) >= flat.element_size()) return std::nullopt;
  PackedTensor packed = PackedTensor::Of(Form::kNarrow, flat);
  packed.kept = flat.to(narrow);
  packed.checksum = ChecksumOf(packed);
  return packed;
}

std::shared_ptr<const Codec> HostPacker::WithZeros(
    const std::shared_ptr<const Codec>& codec) {
  // Codecs that know rows, planes or heads need the zeros in their places.
  const auto spec = ParseCodecSpec(codec->text());
  if (!spec.ok() || codec->traits().has_memory ||
      (spec->name != "int" && spec->name != "luq" && spec->name != "fp" &&
       spec->name != "cast" && spec->name != "error_bound")) {
    return nullptr;
  }
  std::shared_ptr<const Codec>& kept = zero_keepers_[codec->text()];
  if (kept == nullptr) {
    auto made = MakeCodec(absl::StrCat("nonzero(", codec->text(), ")"));
    if (made.ok()) kept = std::move(*made);
  }
  return kept;
}

absl::StatusOr<HostPacker::Outcome> HostPacker::PackWithCodec(
    const at::Tensor& flat, const CodecUse& use, PackedTensor* packed) {
  if (use.codec == nullptr) return Outcome::kNotSmaller;
  *packed = PackedTensor::Of(Form::kCodec, flat);
  packed->codec = use.codec;
  const at::Tensor floats = flat.to(at::kFloat);
  const absl::Span<const float> values = FloatsOf(floats);
  if (!IsFinite(values)) return Outcome::kNotFinite;
  at::Tensor mask;
  if (use.keeps_zeros) {
    if (std::shared_ptr<const Codec> keeper = WithZeros(use.codec)) {
      packed->codec = std::move(keeper);
    } else {
      mask = at::empty({BitMaskBytes(floats.numel())}, at::kByte);
      PackNonzeros(values, BytesOf(mask));
    }
  }
  const Codec& codec = *packed->codec;
  const int64_t most = codec.MaxPayloadBytes(floats.numel());
  const Codec::Traits traits = codec.traits();
  at::Tensor kept;
  absl::Span<uint8_t> out;
  if (traits.has_fixed_size) {
    kept = at::empty({most}, at::kByte);
    out = BytesOf(kept);
  } else {
    if (static_cast<int64_t>(scratch_.size()) < most) {
      scratch_.resize(static_cast<size_t>(most));
    }
    out = absl::MakeSpan(scratch_);
  }
  DP_ASSIGN_OR_RETURN(const int64_t size,
                      traits.has_memory
                          ? codec.EncodeNext(values, use.key, use.memory, out)
                          : codec.Encode(values, use.key, out));
  const bool is_copy = use.is_scratch || floats.data_ptr() != flat.data_ptr();
  scratch_peak_ = std::max<int64_t>(
      scratch_peak_, static_cast<int64_t>(scratch_.size()) +
                         (is_copy ? int64_t(floats.nbytes()) : 0));
  const int64_t mask_bytes = mask.defined() ? mask.numel() : 0;
  if (size + mask_bytes >= static_cast<int64_t>(flat.nbytes())) {
    return Outcome::kNotSmaller;
  }
  if (!traits.has_fixed_size) {
    kept = at::empty({size}, at::kByte);
    std::memcpy(kept.data_ptr(), scratch_.data(), static_cast<size_t>(size));
  }
  packed->kept = std::move(kept);
  packed->mask = std::move(mask);
  packed->checksum = ChecksumOf(*packed);
  return Outcome::kPacked;
}

absl::StatusOr<at::Tensor> HostPacker::UnpackFloats(
    const PackedTensor& packed) {
  const at::Tensor values = at::empty({packed.num_elements}, at::kFloat);
  if (packed.form == Form::kHeld) {
    DP_RETURN_IF_ERROR(packed.read(FloatsOf(values)));
  } else {
    DP_RETURN_IF_ERROR(
        packed.codec->Decode(BytesOf(packed.kept), FloatsOf(values)));
  }
  if (packed.mask.defined()) {
    RestoreZeros(BytesOf(packed.mask), FloatsOf(values));
  }
  const at::Tensor flat = values.to(packed.type);
  if (flat.data_ptr() != values.data_ptr()) {
    scratch_peak_ =
        std::max<int64_t>(scratch_peak_, static_cast<int64_t>(values.nbytes()));
  }
  return flat;
}

absl::StatusOr<at::Tensor> HostPacker::Unpack(const PackedTensor& packed) {
  const bool is_packed = packed.form == Form::kCodec ||
                         packed.form == Form::kBits ||
                         packed.form == Form::kNarrow;
  if (is_packed) DP_RETURN_IF_ERROR(CheckChecksum(packed));
  switch (packed.form) {
    case Form::kExact:
      return absl::InternalError("what is kept as it is needs no unpacking");
    case Form::kCopy:
      return packed.kept;
    case Form::kNarrow:
      return packed.kept.to(packed.type);
    case Form::kBits: {
      const at::Tensor flat = at::empty({packed.num_elements}, at::kBool);
      UnpackBits(BytesOf(packed.kept),
                 {reinterpret_cast<uint8_t*>(flat.data_ptr<bool>()),
                  static_cast<size_t>(packed.num_elements)});
      return flat;
    }
    case Form::kCodec:
    case Form::kHeld:
      return UnpackFloats(packed);
  }
  return absl::InternalError("a form of packed tensors that is not known");
}

int64_t HostPacker::TakeScratchPeak() {
  return std::exchange(scratch_peak_, 0);
}

void HostPacker::Prefetch(const PackedTensor& /*packed*/) {}

void HostPacker::DropFetched(const PackedTensor& /*packed*/) {}

void HostPacker::Share(const at::Tensor& /*unpacked*/) {}

// PackWithCodec says at once what is not finite.
absl::StatusOr<int64_t> HostPacker::TakeNotFinite() { return 0; }

}  // namespace deltapipe
