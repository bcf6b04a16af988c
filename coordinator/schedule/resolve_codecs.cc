#include "coordinator/schedule/resolve_codecs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "compression/delta/boundary_codec.h"

namespace deltapipe {
namespace {

/// Deltas pay from the second visit on.
constexpr double kVisitsThatPay = 2;

bool IsAuto(const std::string& text) { return text.empty() || text == "auto"; }

/// State at one end of each boundary, for one replica's samples.
absl::StatusOr<std::vector<double>> StateBytes(const std::string& codec,
                                               const v1::JobSpec& spec,
                                               const CodecFacts& facts) {
  std::vector<double> bytes;
  const int replicas = spec.parallel().replicas();
  const auto visits = static_cast<double>(spec.train().steps()) *
                      spec.train().batch() / replicas;
  // Never more records than visits.
  double samples = visits;
  if (facts.train_samples > 0) {
    samples = std::min(
        visits,
        static_cast<double>((facts.train_samples + replicas - 1) / replicas));
  }
  for (const int64_t elements : facts.boundary_elements) {
    DP_ASSIGN_OR_RETURN(
        const BoundaryBytes boundary,
        PredictBoundaryBytes(codec, spec.train().microbatch(), elements));
    bytes.push_back(boundary.state_per_sample * samples);
  }
  return bytes;
}

/// Why the state does not fit, or "".
std::string WhyNoRoom(const CodecFacts& facts, const std::vector<double>& state,
                      int64_t cap) {
  for (size_t b = 0; b < state.size(); ++b) {
    if (state[b] > static_cast<double>(cap)) {
      return absl::StrCat("delta state of ", FormatBytes(state[b]),
                          " at each end of boundary ", b,
                          " exceeds compression.state_memory, ",
                          FormatBytes(static_cast<double>(cap)));
    }
  }
  for (size_t stage = 0; stage < facts.free_bytes.size(); ++stage) {
    double needed = 0;
    if (stage > 0) needed += state[stage - 1];
    if (stage < state.size()) needed += state[stage];
    if (needed > static_cast<double>(facts.free_bytes[stage])) {
      return absl::StrCat(
          "delta state of ", FormatBytes(needed), " on stage ", stage,
          " exceeds the ",
          FormatBytes(static_cast<double>(facts.free_bytes[stage])),
          " of memory that a worker has left");
    }
  }
  return "";
}

absl::Status ResolveActivations(const v1::JobSpec& spec,
                                const CodecFacts& facts,
                                ResolvedCodecs* codecs) {
  const double visits = facts.train_samples > 0
                            ? static_cast<double>(spec.train().steps()) *
                                  spec.train().batch() /
                                  static_cast<double>(facts.train_samples)
                            : 0;
  codecs->activations = kStatelessActivationCodec;
  const std::string prefix =
      absl::StrCat("activations: auto is ", kStatelessActivationCodec, ": ");
  if (facts.train_samples == 0) {
    codecs->notes.push_back(absl::StrCat(
        prefix,
        "the number of training samples is not known, so whether they "
        "come back is not either; set ",
        kDeltaActivationCodec, " if they do"));
    return absl::OkStatus();
  }
  if (visits < kVisitsThatPay) {
    codecs->notes.push_back(
        absl::StrFormat("%seach sample is seen %.2g times, too few for deltas",
                        prefix, visits));
    return absl::OkStatus();
  }
  int64_t cap = INT64_MAX;
  if (!spec.compression().state_memory().empty()) {
    DP_ASSIGN_OR_RETURN(cap, ParseBytes(spec.compression().state_memory()));
  }
  DP_ASSIGN_OR_RETURN(const std::vector<double> state,
                      StateBytes(kDeltaActivationCodec, spec, facts));
  const std::string reason = WhyNoRoom(facts, state, cap);
  if (!reason.empty()) {
    codecs->notes.push_back(absl::StrCat(prefix, reason));
    return absl::OkStatus();
  }
  codecs->activations = kDeltaActivationCodec;
  codecs->notes.push_back(absl::StrFormat(
      "activations: auto is %s: each sample is seen %.3g times; its records "
      "take up to %s at each end of a boundary",
      kDeltaActivationCodec, visits,
      FormatBytes(*std::max_element(state.begin(), state.end()))));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ResolvedCodecs> ResolveCodecs(const v1::JobSpec& spec,
                                             const CodecFacts& facts) {
  ResolvedCodecs codecs;
  const v1::CompressionSpec& compression = spec.compression();
  codecs.activations = compression.activations();
  codecs.activation_gradients = compression.activation_gradients();
  codecs.gradients = compression.gradients();
  const bool has_boundaries = !facts.boundary_elements.empty();
  if (IsAuto(codecs.activations)) {
    if (has_boundaries) {
      DP_RETURN_IF_ERROR(ResolveActivations(spec, facts, &codecs));
    } else {
      codecs.activations = "none";
      codecs.notes.push_back("activations: auto is none: one stage sends none");
    }
  }
  if (IsAuto(codecs.activation_gradients)) {
    codecs.activation_gradients =
        has_boundaries ? kActivationGradientCodec : "none";
    if (has_boundaries) {
      codecs.notes.push_back(absl::StrCat("activation_gradients: auto is ",
                                          kActivationGradientCodec,
                                          ": eight unbiased bits"));
    }
  }
  if (IsAuto(codecs.gradients)) {
    const bool is_one_bit = spec.train().optimizer().kind() == "onebit_lamb";
    codecs.gradients = is_one_bit ? "sign(block=0)" : "none";
    codecs.notes.push_back(absl::StrCat(
        "gradients: auto is ", codecs.gradients, ": ",
        is_one_bit ? absl::StrCat(
                         "onebit_lamb compresses from step ",
                         spec.train().optimizer().compress_after_step(), " on")
                   : absl::StrCat(spec.train().optimizer().kind(),
                                  " takes full gradients")));
  }
  bool keeps_state = false;
  DP_RETURN_IF_ERROR(
      Annotate(CheckBoundaryCodec(codecs.activations, &keeps_state),
               "compression.activations"));
  codecs.state_bytes.assign(facts.boundary_elements.size(), 0);
  if (keeps_state) {
    DP_ASSIGN_OR_RETURN(codecs.state_bytes,
                        StateBytes(codecs.activations, spec, facts));
  }
  return codecs;
}

int64_t TrainSamplesOfSpec(const v1::JobSpec& spec) {
  if (spec.model().kind() == "synthetic") {
    return spec.model().synthetic().samples();
  }
  const auto limit = ParseBytes(spec.data().limit());
  if (!limit.ok() || *limit == INT64_MAX || spec.model().context() < 1) {
    return 0;
  }
  return static_cast<int64_t>(static_cast<double>(*limit) *
                              (1 - spec.data().validation())) /
         spec.model().context();
}

}  // namespace deltapipe
