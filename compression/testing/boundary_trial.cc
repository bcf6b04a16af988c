#include "compression/testing/boundary_trial.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/buffer.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "compression/codec_registry.h"
#include "compression/delta/boundary_body.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/boundary_spec.h"
#include "compression/testing/allocation_meter.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/decoder_trial.h"

namespace deltapipe {
namespace {

constexpr size_t kNumSamples = 3;
constexpr int64_t kSampleSizes[] = {1, 7, 64, 129};

// Both ends of a channel, and what belongs to it.
class Boundary {
 public:
  static absl::StatusOr<Boundary> Create(const std::string& codec,
                                         int64_t elements) {
    Boundary boundary;
    BoundaryOptions& options = boundary.options_;
    options.codec = codec;
    options.seed = 5;
    options.boundary_id = 2;
    options.elements_per_sample = elements;
    DP_ASSIGN_OR_RETURN(boundary.encoder_, BoundaryEncoder::Create(options));
    DP_ASSIGN_OR_RETURN(boundary.decoder_, BoundaryDecoder::Create(options));
    DP_ASSIGN_OR_RETURN(const BoundarySpec spec,
                        ParseBoundarySpec(codec, options.direction));
    boundary.has_records_ = spec.kind == BoundarySpec::Kind::kDelta;
    const std::string text = spec.Text();
    boundary.codec_hash_ = Checksum(absl::MakeConstSpan(
        reinterpret_cast<const uint8_t*>(text.data()), text.size()));
    return boundary;
  }

  bool has_records() const { return has_records_; }
  BoundaryDecoder& decoder() { return *decoder_; }
  size_t num_values() const {
    return kNumSamples * static_cast<size_t>(options_.elements_per_sample);
  }

  BodyContext Context(uint32_t step, bool is_keyframes) const {
    BodyContext context;
    context.codec_hash = codec_hash_;
    context.boundary_id = options_.boundary_id;
    context.direction = options_.direction;
    context.elements_per_sample = options_.elements_per_sample;
    context.step = step;
    context.is_keyframes = is_keyframes;
    return context;
  }

  absl::StatusOr<Buffer> Encode(uint32_t step,
                                const std::vector<float>& values) {
    Buffer body;
    DP_RETURN_IF_ERROR(
        encoder_->Encode(step, samples_, values, /*reads_only=*/false, &body));
    encoder_->CommitStep(step);
    return body;
  }

  absl::StatusOr<Buffer> EncodeKeyframes() {
    std::vector<uint64_t> keys;
    for (const BoundarySample& sample : samples_) keys.push_back(sample.key);
    Buffer body;
    DP_RETURN_IF_ERROR(encoder_->EncodeKeyframes(keys, &body));
    return body;
  }

  // Decodes a body, or applies keyframes for it where there are some.
  absl::Status Decode(uint32_t step, absl::Span<const uint8_t> body,
                      const std::vector<uint8_t>* keyframes,
                      std::vector<uint64_t>* missing) {
    std::vector<float> values(num_values());
    if (keyframes != nullptr) {
      return decoder_->ApplyKeyframes(step, samples_, body, *keyframes,
                                      absl::MakeSpan(values));
    }
    return decoder_->Decode(step, samples_, body, /*reads_only=*/false,
                            absl::MakeSpan(values), missing);
  }

 private:
  Boundary() : samples_(kNumSamples) {
    for (uint32_t i = 0; i < kNumSamples; ++i) samples_[i] = {100 + i, i};
  }

  BoundaryOptions options_;
  std::vector<BoundarySample> samples_;
  std::unique_ptr<BoundaryEncoder> encoder_;
  std::unique_ptr<BoundaryDecoder> decoder_;
  bool has_records_ = false;
  uint64_t codec_hash_ = 0;
};

absl::Status Broken(const std::string& codec, absl::string_view what) {
  return absl::InternalError(absl::StrCat(codec, ": ", what));
}

// Decodes foreign bytes and holds the decoder to its word.
absl::Status DecodeForeign(const std::string& codec, uint32_t step,
                           const std::vector<uint8_t>& body,
                           const std::vector<uint8_t>* keyframes,
                           bool is_intact, Boundary* boundary) {
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[body.size()]);
  std::copy(body.begin(), body.end(), exact.get());
  const uint64_t hash = boundary->decoder().StateHash();
  std::vector<uint64_t> missing;

  const AllocationMeter meter;
  const absl::Status status =
      boundary->Decode(step, {exact.get(), body.size()}, keyframes, &missing);
  const int64_t allocated = meter.bytes();

  const int64_t num_bytes = static_cast<int64_t>(
      body.size() + (keyframes == nullptr ? 0 : keyframes->size()));
  const int64_t limit = AllocationLimit(
      static_cast<int64_t>(kNumSamples * boundary->num_values()),
      4 * num_bytes);
  if (allocated > limit) {
    return Broken(codec, absl::StrCat("allocated ", allocated, " bytes for ",
                                      num_bytes, ", limit ", limit));
  }
  if (!status.ok() && !absl::IsInvalidArgument(status) &&
      !absl::IsFailedPrecondition(status)) {
    return Broken(codec, status.ToString());
  }
  const bool is_applied = status.ok() && missing.empty();
  if (!is_applied && boundary->decoder().StateHash() != hash) {
    return Broken(codec, "a refused body changed the state");
  }
  if (is_intact && !is_applied) {
    return Broken(codec, absl::StrCat("did not take what was encoded: ",
                                      status.ToString()));
  }
  if (is_applied) boundary->decoder().CommitStep(step);
  return absl::OkStatus();
}

std::vector<uint8_t> BytesOf(const Buffer& buffer) {
  return {buffer.span().begin(), buffer.span().end()};
}

// Damages `bytes`, or takes all of the input instead, and seals the result.
void MakeForeign(bool is_raw, const BodyContext& context, TrialInput* input,
                 std::vector<uint8_t>* bytes) {
  if (is_raw) {
    // Behind a checksum, which is not for the input to guess.
    bytes->assign(sizeof(uint64_t), 0);
    bytes->insert(bytes->end(), input->rest().begin(), input->rest().end());
  } else {
    input->Damage(bytes);
  }
  if (bytes->size() >= sizeof(uint64_t)) {
    SealBody(context, absl::MakeSpan(*bytes));
  }
}

}  // namespace

std::vector<std::string> BoundarySettings() {
  std::vector<std::string> settings;
  for (const CodecInfo& info : AllCodecs()) {
    if (info.is_wrapper()) continue;
    const std::string codec = ExampleCodecText(info);
    settings.push_back(codec);
    settings.push_back(absl::StrCat("delta(", codec, ")"));
    settings.push_back(absl::StrCat("delta(int(4),first=", codec, ")"));
  }
  settings.push_back("delta(int(4),store=fp32)");
  settings.push_back("delta(int(4),store=int(8))");
  settings.push_back("ef(sign)");
  settings.push_back("ef(sign,store=int(8))");
  return settings;
}

absl::Status TryBoundaryDecoder(const std::string& codec, TrialInput input) {
  const int64_t elements = kSampleSizes[input.Index(std::size(kSampleSizes))];
  DP_ASSIGN_OR_RETURN(Boundary boundary, Boundary::Create(codec, elements));
  const uint8_t choices = input.Byte();
  const bool is_raw = choices & 1;
  const bool is_first_visit = choices & 2;
  const bool has_keyframes = choices & 4 && boundary.has_records();
  const bool damages_keyframes = choices & 8;

  std::vector<float> values =
      MakeTestData(TestData::kNormal, boundary.num_values(), input.Byte());
  uint32_t step = 1;
  DP_ASSIGN_OR_RETURN(Buffer body, boundary.Encode(step, values));
  if (!is_first_visit) {
    // With keyframes, the receiver has lost what it had.
    if (!has_keyframes) {
      DP_RETURN_IF_ERROR(DecodeForeign(codec, step, BytesOf(body), nullptr,
                                       /*is_intact=*/true, &boundary));
    }
    for (float& value : values) value *= 0.9f;
    DP_ASSIGN_OR_RETURN(body, boundary.Encode(++step, values));
  }
  const bool is_intact = !is_raw && input.empty();
  std::vector<uint8_t> bytes = BytesOf(body);
  if (!has_keyframes) {
    MakeForeign(is_raw, boundary.Context(step, false), &input, &bytes);
    return DecodeForeign(codec, step, bytes, nullptr, is_intact, &boundary);
  }
  DP_ASSIGN_OR_RETURN(const Buffer encoded, boundary.EncodeKeyframes());
  std::vector<uint8_t> keyframes = BytesOf(encoded);
  if (damages_keyframes) {
    MakeForeign(is_raw, boundary.Context(0, true), &input, &keyframes);
  } else {
    MakeForeign(is_raw, boundary.Context(step, false), &input, &bytes);
  }
  return DecodeForeign(codec, step, bytes, &keyframes, is_intact, &boundary);
}

}  // namespace deltapipe
