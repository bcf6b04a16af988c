#include "worker/lab/codec_sweep.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codec_registry.h"
#include "compression/delta/boundary_spec.h"
#include "worker/lab/codec_experiment.h"

namespace deltapipe {
namespace {

// Rows of codecs.def that are not here are measured with their defaults.
constexpr const char* kStatelessCodecs[] = {
    "none",
    "cast(bf16)",
    "cast(fp16)",
    "int(1)",
    "int(2)",
    "int(3)",
    "int(4)",
    "int(4,block=16)",
    "int(4,clip=minmax)",
    "int(4,round=stochastic)",
    "int(6)",
    "int(8)",
    "sign",
    "sign(block=64)",
    "aqsgd(2)",
    "aqsgd(4)",
    "aqsgd(8)",
    "rowwise4",
    "rowwise4(search=greedy)",
    "rowwise4(search=codebook)",
    "topk(0.01)",
    "topk(0.1)",
    "error_bound(rel=0.1)",
    "error_bound(rel=0.01)",
    "error_bound(rel=0.001)",
    "dual_precision",
    "dual_precision(high_bits=4)",
    "per_head(int(4))",
    "per_head(int(8))",
    "hadamard(int(2))",
    "hadamard(int(4))",
    "hadamard(entropy_tiles)",
    "lowrank(4)",
    "lowrank(16)",
    "entropy_tiles",
    "luq",
    "luq(samples=2)",
    "fp(auto,4)",
    "fp(auto,6)",
    "fp(4,3)",
    "fp(5,2)",
    "prune(0.5)",
    "prune(0.85)",
    "eoq_shift8",
    "eoq_flag8",
};

constexpr const char* kDeltaCodecs[] = {
    "delta(int(2))", "delta(int(4))", "delta(int(8))",
    "delta(sign)",   "delta(luq)",    "delta(topk(0.1))",
};

absl::Status CheckCodecs(const std::vector<std::string>& codecs,
                         bool has_previous) {
  bool has_delta = false;
  for (const std::string& codec : codecs) {
    DP_ASSIGN_OR_RETURN(const BoundarySpec spec,
                        ParseBoundarySpec(codec, /*direction=*/0));
    if (spec.kind == BoundarySpec::Kind::kDelta) has_delta = true;
  }
  if (has_previous && !has_delta) {
    return absl::InvalidArgumentError(
        "--previous needs a delta(...) codec, got none in --codecs");
  }
  return absl::OkStatus();
}

absl::StatusOr<SweepResult> MeasureAll(const std::string& codec,
                                       const ExperimentTensors& tensors,
                                       uint64_t seed) {
  SweepResult all;
  all.codec = codec;
  double value_squares = 0, error_squares = 0, error_sum = 0;
  double encode_seconds = 0, decode_seconds = 0;
  int64_t compared = 0;
  DP_RETURN_IF_ERROR(MeasureCodec(
      codec, tensors, seed,
      [&](const TensorResult& result, const std::vector<float>&) {
        if (result.elements == 0) return;
        const double count = static_cast<double>(result.elements);
        all.elements += result.elements;
        all.payload_bytes += result.payload_bytes;
        value_squares += result.value_squares;
        error_squares += result.error_squares;
        all.not_finite += result.not_finite;
        all.decoded_not_finite += result.decoded_not_finite;
        compared += result.compared;
        if (result.compared > 0) {
          error_sum += result.mean_error * static_cast<double>(result.compared);
        }
        encode_seconds += 4e-9 * count / result.encode_gb_per_s;
        decode_seconds += 4e-9 * count / result.decode_gb_per_s;
      }));
  if (all.elements == 0) return all;
  const double count = static_cast<double>(all.elements);
  all.bits_per_element = 8 * static_cast<double>(all.payload_bytes) / count;
  all.relative_rms_error =
      compared == 0        ? std::numeric_limits<double>::quiet_NaN()
      : error_squares == 0 ? 0
                           : std::sqrt(error_squares / value_squares);
  all.mean_error = error_sum / static_cast<double>(compared);
  all.encode_gb_per_s = 4e-9 * count / encode_seconds;
  all.decode_gb_per_s = 4e-9 * count / decode_seconds;
  return all;
}

}  // namespace

std::vector<std::string> DefaultSweepCodecs(bool has_previous) {
  std::vector<std::string> codecs(std::begin(kStatelessCodecs),
                                  std::end(kStatelessCodecs));
  for (const CodecInfo& info : AllCodecs()) {
    const auto names_it = [&](const std::string& codec) {
      return codec == info.name ||
             absl::StartsWith(codec, absl::StrCat(info.name, "("));
    };
    if (!info.is_wrapper() &&
        std::none_of(codecs.begin(), codecs.end(), names_it)) {
      codecs.push_back(ExampleCodecText(info));
    }
  }
  if (has_previous) {
    codecs.insert(codecs.end(), std::begin(kDeltaCodecs),
                  std::end(kDeltaCodecs));
  }
  return codecs;
}

absl::StatusOr<std::vector<SweepResult>> RunCodecSweep(
    const CodecSweep& sweep) {
  const bool has_previous = !sweep.previous_path.empty();
  const std::vector<std::string> codecs =
      sweep.codecs.empty() ? DefaultSweepCodecs(has_previous) : sweep.codecs;
  DP_RETURN_IF_ERROR(CheckCodecs(codecs, has_previous));
  DP_ASSIGN_OR_RETURN(
      const ExperimentTensors tensors,
      ReadExperimentTensors(sweep.input_path, sweep.previous_path));
  std::vector<SweepResult> results;
  for (const std::string& codec : codecs) {
    absl::StatusOr<SweepResult> result = MeasureAll(codec, tensors, sweep.seed);
    if (!result.ok()) {
      return Annotate(result.status(), absl::StrCat("codec ", codec));
    }
    results.push_back(*std::move(result));
  }
  MarkParetoFront(&results);
  return results;
}

void MarkParetoFront(std::vector<SweepResult>* results) {
  const auto error_of = [](const SweepResult& result) {
    return std::isfinite(result.relative_rms_error)
               ? result.relative_rms_error
               : std::numeric_limits<double>::infinity();
  };
  std::stable_sort(results->begin(), results->end(),
                   [&](const SweepResult& a, const SweepResult& b) {
                     return std::make_pair(a.bits_per_element, error_of(a)) <
                            std::make_pair(b.bits_per_element, error_of(b));
                   });
  double least = std::numeric_limits<double>::infinity();
  for (SweepResult& result : *results) {
    result.is_on_pareto_front = error_of(result) < least;
    least = std::min(least, error_of(result));
  }
}

}  // namespace deltapipe
