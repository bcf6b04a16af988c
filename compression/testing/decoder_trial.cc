#include "compression/testing/decoder_trial.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "compression/testing/allocation_meter.h"
#include "compression/testing/codec_conformance.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxElements = 4096;

absl::Status Broken(const Codec& codec, size_t count, absl::string_view what) {
  return absl::InternalError(
      absl::StrCat(codec.text(), ", ", count, " elements: ", what));
}

absl::StatusOr<std::vector<uint8_t>> Encoded(const Codec& codec, size_t count,
                                             TrialInput* input) {
  const TestData data = kAllTestData[input->Index(std::size(kAllTestData))];
  const uint32_t seed = input->Byte();
  const std::vector<float> values = MakeTestData(data, count, seed);
  std::vector<uint8_t> payload(
      static_cast<size_t>(codec.MaxPayloadBytes(static_cast<int64_t>(count))));
  const auto size = codec.Encode(values, RandomKey{seed, 1, 2, 3, 0},
                                 absl::MakeSpan(payload));
  if (!size.ok()) return Broken(codec, count, size.status().message());
  payload.resize(static_cast<size_t>(*size));
  return payload;
}

// Decodes into memory that is full of `filling` before.
absl::Status DecodeOver(const Codec& codec, absl::Span<const uint8_t> payload,
                        uint8_t filling, std::vector<float>* out) {
  float value;
  std::memset(&value, filling, sizeof(value));
  std::fill(out->begin(), out->end(), value);
  return codec.Decode(payload, absl::MakeSpan(*out));
}

absl::Status CheckDecode(const Codec& codec, size_t count, bool is_intact,
                         const std::vector<uint8_t>& bytes) {
  // Not within a vector's spare room.
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
  if (!bytes.empty()) std::memcpy(exact.get(), bytes.data(), bytes.size());
  const absl::Span<const uint8_t> payload(exact.get(), bytes.size());
  std::vector<float> first(count), second(count);

  const AllocationMeter meter;
  const absl::Status status = DecodeOver(codec, payload, 0x55, &first);
  const int64_t allocated = meter.bytes();

  const int64_t limit = AllocationLimit(static_cast<int64_t>(count),
                                        static_cast<int64_t>(bytes.size()));
  if (allocated > limit) {
    return Broken(codec, count,
                  absl::StrCat("allocated ", allocated, " bytes for a payload ",
                               "of ", bytes.size(), ", limit ", limit));
  }
  if (!status.ok() && !absl::IsInvalidArgument(status)) {
    return Broken(codec, count, status.ToString());
  }
  if (is_intact && !status.ok()) {
    return Broken(codec, count,
                  absl::StrCat("refused what it encoded: ", status.message()));
  }
  const int64_t size = codec.MaxPayloadBytes(static_cast<int64_t>(count));
  if (status.ok() && codec.traits().has_fixed_size &&
      static_cast<int64_t>(bytes.size()) != size) {
    return Broken(
        codec, count,
        absl::StrCat("took ", bytes.size(), " bytes, expected ", size));
  }
  if (DecodeOver(codec, payload, 0xAA, &second) != status) {
    return Broken(codec, count, "refused a payload, but not always");
  }
  if (status.ok() && count > 0 &&
      std::memcmp(first.data(), second.data(), count * sizeof(float)) != 0) {
    return Broken(codec, count, "left values as they were");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TryDecoder(const Codec& codec, TrialInput input) {
  const size_t count = input.Index(kMaxElements + 1);
  if (input.Byte() % 2 == 0) {
    return CheckDecode(codec, count, /*is_intact=*/false,
                       {input.rest().begin(), input.rest().end()});
  }
  DP_ASSIGN_OR_RETURN(std::vector<uint8_t> payload,
                      Encoded(codec, count, &input));
  DP_RETURN_IF_ERROR(CheckDecode(codec, count, /*is_intact=*/true, payload));
  if (input.empty()) return absl::OkStatus();
  input.Damage(&payload);
  return CheckDecode(codec, count, /*is_intact=*/false, payload);
}

}  // namespace deltapipe
