#include "worker/lab/codec_experiment.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/buffer.h"
#include "base/safetensors.h"
#include "base/status_macros.h"
#include "base/tensor_view.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"
#include "compression/codecs/error_bound.h"
#include "compression/delta/boundary_body.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/boundary_spec.h"
#include "compression/delta/record.h"
#include "compression/delta/record_math.h"
#include "compression/delta/state_store.h"

namespace deltapipe {
namespace {

bool IsFloat(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat16 ||
         dtype == DType::kBFloat16 || dtype == DType::kFloat64;
}

// The sample that a tensor is, and the step of its visit.
constexpr uint64_t kSampleKey = 1;
constexpr uint32_t kStep = 1;

// Runs `work` until it has taken 30 ms or 10 runs, each after `prepare`, whose
// time does not count; returns the best GB/s.
template <class Prepare, class Work>
absl::StatusOr<double> MeasureSpeed(int64_t num_elements,
                                    const Prepare& prepare, const Work& work) {
  using Clock = std::chrono::steady_clock;
  double total = 0, best = 0;
  for (int run = 0; run < 10 && (run == 0 || total < 0.03); ++run) {
    DP_RETURN_IF_ERROR(prepare());
    const Clock::time_point begin = Clock::now();
    DP_RETURN_IF_ERROR(work());
    const double seconds = std::max(
        std::chrono::duration<double>(Clock::now() - begin).count(), 1e-9);
    total += seconds;
    best = std::max(best, 4e-9 * static_cast<double>(num_elements) / seconds);
  }
  return best;
}

struct EncodedTensor {
  TensorResult result;
  std::vector<float> decoded;
};

// Nothing for other codecs than error_bound.
absl::StatusOr<std::optional<ErrorBoundStatistics>> StatisticsOf(
    const Codec& codec, absl::Span<const uint8_t> payload) {
  DP_ASSIGN_OR_RETURN(const CodecSpec spec, ParseCodecSpec(codec.text()));
  if (spec.name != "error_bound") return std::nullopt;
  DP_ASSIGN_OR_RETURN(const ErrorBoundStatistics statistics,
                      ReadErrorBoundStatistics(payload));
  return std::optional<ErrorBoundStatistics>(statistics);
}

absl::StatusOr<EncodedTensor> EncodeValues(const Codec& codec,
                                           absl::Span<const float> values,
                                           const RandomKey& key) {
  const int64_t count = static_cast<int64_t>(values.size());
  const auto nothing = [] { return absl::OkStatus(); };
  EncodedTensor encoded;
  encoded.decoded.resize(values.size());
  Buffer payload(codec.MaxPayloadBytes(count));
  int64_t size = 0;
  DP_ASSIGN_OR_RETURN(encoded.result.encode_gb_per_s,
                      MeasureSpeed(count, nothing, [&]() -> absl::Status {
                        DP_ASSIGN_OR_RETURN(
                            size, codec.Encode(values, key, payload.span()));
                        return absl::OkStatus();
                      }));
  DP_ASSIGN_OR_RETURN(encoded.result.decode_gb_per_s,
                      MeasureSpeed(count, nothing, [&] {
                        return codec.Decode(payload.span().first(size),
                                            absl::MakeSpan(encoded.decoded));
                      }));
  encoded.result.elements = count;
  encoded.result.payload_bytes = size;
  DP_ASSIGN_OR_RETURN(encoded.result.error_bound,
                      StatisticsOf(codec, payload.span().first(size)));
  return encoded;
}

// Makes `previous` what one end has stored on the sample's last visit.
absl::Status KeepRecord(const BoundarySpec& spec,
                        absl::Span<const float> previous, StateStore* store) {
  const int64_t count = static_cast<int64_t>(previous.size());
  std::shared_ptr<Record> record =
      NewRecord(/*version=*/1, spec.RecordBytes(count));
  RecordMath math(
      {spec.store == BoundarySpec::Store::kFloat32, spec.store_codec.get()},
      count);
  DP_RETURN_IF_ERROR(math.Store(previous.data(), record.get()));
  store->Stage(kStep - 1, kSampleKey, std::move(record));
  store->CommitStep(kStep - 1);
  return absl::OkStatus();
}

// Sends the tensor over a boundary, as a job does.
absl::StatusOr<EncodedTensor> EncodeOverBoundary(
    const BoundarySpec& spec, absl::Span<const float> values,
    const std::optional<std::vector<float>>& previous, const RandomKey& key) {
  const int64_t count = static_cast<int64_t>(values.size());
  BoundaryOptions options;
  options.codec = spec.Text();
  options.seed = key.seed;
  options.boundary_id = key.tensor_id;
  options.elements_per_sample = count;
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<BoundaryEncoder> encoder,
                      BoundaryEncoder::Create(options));
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<BoundaryDecoder> decoder,
                      BoundaryDecoder::Create(options));
  if (previous.has_value()) {
    DP_RETURN_IF_ERROR(KeepRecord(spec, *previous, encoder->state()));
    DP_RETURN_IF_ERROR(KeepRecord(spec, *previous, decoder->state()));
  }
  const BoundarySample sample = {kSampleKey, 0};
  const absl::Span<const BoundarySample> samples(&sample, 1);
  EncodedTensor encoded;
  encoded.decoded.resize(values.size());
  Buffer body;
  std::vector<uint64_t> missing;
  DP_ASSIGN_OR_RETURN(encoded.result.encode_gb_per_s,
                      MeasureSpeed(
                          count, [&] { return encoder->RollbackTo(kStep - 1); },
                          [&] {
                            return encoder->Encode(kStep, samples, values,
                                                   /*reads_only=*/false, &body);
                          }));
  DP_ASSIGN_OR_RETURN(encoded.result.decode_gb_per_s,
                      MeasureSpeed(
                          count, [&] { return decoder->RollbackTo(kStep - 1); },
                          [&] {
                            return decoder->Decode(
                                kStep, samples, body.span(),
                                /*reads_only=*/false,
                                absl::MakeSpan(encoded.decoded), &missing);
                          }));
  encoded.result.elements = count;
  encoded.result.payload_bytes = body.size() - BodyTableBytes(1);
  const bool is_first = spec.kind == BoundarySpec::Kind::kDelta &&
                        encoder->counters().delta_rows == 0;
  DP_ASSIGN_OR_RETURN(
      encoded.result.error_bound,
      StatisticsOf(
          is_first ? *spec.first : *spec.codec,
          body.span().last(static_cast<size_t>(encoded.result.payload_bytes))));
  return encoded;
}

// Of a zero tensor that comes back as another one, infinite.
double RelativeError(double error_squares, double squares, int64_t compared) {
  if (compared == 0) return std::numeric_limits<double>::quiet_NaN();
  return error_squares == 0 ? 0 : std::sqrt(error_squares / squares);
}

void MeasureError(absl::Span<const float> values, EncodedTensor* encoded) {
  TensorResult& result = encoded->result;
  double error_squares = 0, squares = 0, error_sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const bool is_finite = std::isfinite(values[i]);
    const bool is_decoded_finite = std::isfinite(encoded->decoded[i]);
    if (!is_finite) ++result.not_finite;
    if (!is_decoded_finite) ++result.decoded_not_finite;
    if (!is_finite || !is_decoded_finite) continue;
    ++result.compared;
    const double error = static_cast<double>(encoded->decoded[i]) - values[i];
    error_squares += error * error;
    error_sum += error;
    squares += static_cast<double>(values[i]) * values[i];
  }
  if (values.empty()) return;
  result.bits_per_element = 8 * static_cast<double>(result.payload_bytes) /
                            static_cast<double>(values.size());
  result.relative_rms_error =
      RelativeError(error_squares, squares, result.compared);
  result.mean_error = error_sum / static_cast<double>(result.compared);
  result.value_squares = squares;
  result.error_squares = error_squares;
}

// The previous values of the tensor `entry`, or nothing for a first visit.
absl::StatusOr<std::optional<std::vector<float>>> PreviousValues(
    const std::optional<SafetensorsFile>& previous, const std::string& path,
    const SafetensorsFile::Entry& entry) {
  if (!previous.has_value()) return std::nullopt;
  for (const SafetensorsFile::Entry& other : previous->entries()) {
    if (other.name != entry.name) continue;
    if (other.shape != entry.shape || !IsFloat(other.dtype)) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": tensor ", entry.name, " is not a float tensor of shape ",
          ShapeString(entry.shape), " as in the input"));
    }
    DP_ASSIGN_OR_RETURN(std::vector<float> values,
                        previous->FloatValues(entry.name));
    return std::optional<std::vector<float>>(std::move(values));
  }
  return std::nullopt;
}

absl::StatusOr<EncodedTensor> EncodeTensor(
    const BoundarySpec& spec, absl::Span<const float> values,
    const std::optional<std::vector<float>>& previous, const RandomKey& key) {
  // A boundary has no empty samples.
  if (spec.kind == BoundarySpec::Kind::kStateless || values.empty()) {
    return EncodeValues(*spec.codec, values, key);
  }
  return EncodeOverBoundary(spec, values, previous, key);
}

}  // namespace

absl::StatusOr<ExperimentTensors> ReadExperimentTensors(
    const std::string& input_path, const std::string& previous_path) {
  ExperimentTensors tensors;
  DP_ASSIGN_OR_RETURN(tensors.input, SafetensorsFile::Read(input_path));
  if (!previous_path.empty()) {
    DP_ASSIGN_OR_RETURN(tensors.previous, SafetensorsFile::Read(previous_path));
    tensors.previous_path = previous_path;
  }
  return tensors;
}

absl::Status MeasureCodec(
    const std::string& codec, const ExperimentTensors& tensors, uint64_t seed,
    const std::function<void(const TensorResult&, std::vector<float> decoded)>&
        report) {
  RandomKey key;
  key.seed = seed;
  for (const SafetensorsFile::Entry& entry : tensors.input.entries()) {
    if (!IsFloat(entry.dtype)) continue;
    DP_ASSIGN_OR_RETURN(const std::vector<float> values,
                        tensors.input.FloatValues(entry.name));
    DP_ASSIGN_OR_RETURN(const std::string bound,
                        BindTensorShape(codec, entry.shape));
    DP_ASSIGN_OR_RETURN(const BoundarySpec spec,
                        ParseBoundarySpec(bound, /*direction=*/0));
    std::optional<std::vector<float>> previous;
    if (spec.kind == BoundarySpec::Kind::kDelta) {
      DP_ASSIGN_OR_RETURN(
          previous,
          PreviousValues(tensors.previous, tensors.previous_path, entry));
    }
    absl::StatusOr<EncodedTensor> encoded =
        EncodeTensor(spec, values, previous, key);
    if (!encoded.ok()) {
      return Annotate(encoded.status(), absl::StrCat("tensor ", entry.name));
    }
    ++key.tensor_id;
    encoded->result.tensor = entry.name;
    MeasureError(values, &*encoded);
    report(encoded->result, std::move(encoded->decoded));
  }
  return absl::OkStatus();
}

absl::Status RunCodecExperiment(
    const CodecExperiment& experiment,
    const std::function<void(const TensorResult&)>& report) {
  DP_ASSIGN_OR_RETURN(const BoundarySpec spec,
                      ParseBoundarySpec(experiment.codec, /*direction=*/0));
  if (!experiment.previous_path.empty() &&
      spec.kind != BoundarySpec::Kind::kDelta) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--previous needs a delta(...) codec, got ", experiment.codec));
  }
  DP_ASSIGN_OR_RETURN(
      const ExperimentTensors tensors,
      ReadExperimentTensors(experiment.input_path, experiment.previous_path));
  const bool keeps_output = !experiment.output_path.empty();
  std::map<std::string, std::vector<float>> kept;
  DP_RETURN_IF_ERROR(
      MeasureCodec(experiment.codec, tensors, experiment.seed,
                   [&](const TensorResult& result, std::vector<float> decoded) {
                     report(result);
                     if (keeps_output) kept[result.tensor] = std::move(decoded);
                   }));
  if (!keeps_output) return absl::OkStatus();

  SafetensorsWriter writer;
  for (const SafetensorsFile::Entry& entry : tensors.input.entries()) {
    const auto decoded = kept.find(entry.name);
    if (decoded == kept.end()) {
      DP_ASSIGN_OR_RETURN(const TensorView view,
                          tensors.input.Tensor(entry.name));
      writer.Add(entry.name, view);
    } else {
      writer.Add(entry.name, TensorView(DType::kFloat32, entry.shape,
                                        decoded->second.data()));
    }
  }
  std::map<std::string, std::string> metadata = tensors.input.metadata();
  metadata["deltapipe_codec"] = spec.Text();
  return writer.WriteTo(experiment.output_path, metadata);
}

}  // namespace deltapipe
