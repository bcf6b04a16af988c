#include "coordinator/schedule/resolve_codecs.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/image_options.h"
#include "base/mixed_sizes.h"
#include "base/optimizer_kind.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "compression/codec_registry.h"
#include "compression/delta/boundary_codec.h"
#include "coordinator/spec/synchronisation.h"

namespace deltapipe {
namespace {

/// Deltas pay from the second visit on.
constexpr double kVisitsThatPay = 2;

bool IsAuto(const std::string& text) { return text.empty() || text == "auto"; }

/// State of one direction at both ends of each boundary.
struct ChannelState {
  std::vector<double> sender;
  std::vector<double> receiver;
};

/// For one replica's samples; an end never keeps more than `cap`.
absl::StatusOr<ChannelState> StateOf(const std::string& codec,
                                     const v1::JobSpec& spec,
                                     const CodecFacts& facts, int64_t cap) {
  ChannelState state;
  bool is_delta = false;
  DP_RETURN_IF_ERROR(CheckBoundaryCodec(codec, &is_delta));
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
  for (size_t b = 0; b < facts.boundary_elements.size(); ++b) {
    std::string bound = codec;
    if (b < facts.boundary_shapes.size()) {
      const BoundaryShape& shape = facts.boundary_shapes[b];
      DP_ASSIGN_OR_RETURN(bound,
                          BindTensorShape(codec, {shape.rows, shape.columns}));
    }
    DP_ASSIGN_OR_RETURN(const BoundaryBytes boundary,
                        PredictBoundaryBytes(bound, spec.train().microbatch(),
                                             facts.boundary_elements[b]));
    const double bytes =
        std::min(boundary.state_per_sample * samples, static_cast<double>(cap));
    state.sender.push_back(bytes);
    // The residuals of ef are the sender's alone.
    state.receiver.push_back(is_delta ? bytes : 0);
  }
  return state;
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

/// The facts once the state of activation gradients has taken its memory.
CodecFacts FactsBeside(const ChannelState& gradients, CodecFacts facts) {
  for (size_t stage = 0; stage < facts.free_bytes.size(); ++stage) {
    if (facts.free_bytes[stage] == INT64_MAX) continue;
    double taken = 0;
    if (stage > 0) taken += gradients.sender[stage - 1];
    if (stage < gradients.receiver.size()) taken += gradients.receiver[stage];
    facts.free_bytes[stage] -= static_cast<int64_t>(std::min(taken, 1e18));
  }
  return facts;
}

/// Fills in what all boundaries have in common; each end does the rest, and
/// all of it where a boundary itself has tensors of several shapes.
absl::Status BindBoundary(const char* field, const v1::JobSpec& spec,
                          const CodecFacts& facts, std::string* codec) {
  std::vector<BoundaryShape> shapes = facts.boundary_shapes;
  if (shapes.empty()) {
    shapes.push_back({spec.model().context(), spec.model().width()});
  }
  std::set<std::string> texts;
  for (const BoundaryShape& shape : shapes) {
    auto bound = BindTensorShape(*codec, {shape.rows, shape.columns});
    if (!bound.ok()) return Annotate(bound.status(), field);
    texts.insert(*std::move(bound));
  }
  if (texts.size() == 1 && MixedSizes(spec.data().sizes()).empty()) {
    *codec = *texts.begin();
  }
  return absl::OkStatus();
}

absl::Status ResolveActivations(const v1::JobSpec& spec,
                                const CodecFacts& facts, int64_t cap,
                                ResolvedCodecs* codecs) {
  const double visits = facts.train_samples > 0
                            ? static_cast<double>(spec.train().steps()) *
                                  spec.train().batch() /
                                  static_cast<double>(facts.train_samples)
                            : 0;
  codecs->activations = kStatelessActivationCodec;
  if (spec.data().views() == "unbounded") {
    codecs->notes.push_back(absl::StrCat(
        "activations: auto is ", kStatelessActivationCodec,
        ": data.views is unbounded, so that no sample's tensor comes back"));
    return absl::OkStatus();
  }
  if (!MixedSizes(spec.data().sizes()).empty()) {
    codecs->notes.push_back(absl::StrCat(
        "activations: auto is ", kStatelessActivationCodec,
        ": data.sizes brings a sample to another size at each visit"));
    return absl::OkStatus();
  }
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
  DP_ASSIGN_OR_RETURN(const ChannelState both_ends,
                      StateOf(kDeltaActivationCodec, spec, facts, INT64_MAX));
  const std::vector<double>& state = both_ends.sender;
  CodecFacts room = facts;
  // What is on disk takes what memory there is.
  if (spec.compression().state_on() == "disk") room.free_bytes.clear();
  const std::string reason = WhyNoRoom(room, state, cap);
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
  const bool is_auto_backward = IsAuto(codecs.activation_gradients);
  if (is_auto_backward) {
    codecs.activation_gradients =
        has_boundaries ? kActivationGradientCodec : "none";
  }
  int64_t cap = INT64_MAX;
  if (!compression.state_memory().empty()) {
    DP_ASSIGN_OR_RETURN(cap, ParseBytes(compression.state_memory()));
  }
  DP_RETURN_IF_ERROR(BindBoundary("compression.activation_gradients", spec,
                                  facts, &codecs.activation_gradients));
  if (!IsAuto(codecs.activations)) {
    DP_RETURN_IF_ERROR(BindBoundary("compression.activations", spec, facts,
                                    &codecs.activations));
  }
  const auto backward = StateOf(codecs.activation_gradients, spec, facts, cap);
  if (!backward.ok()) {
    return Annotate(backward.status(), "compression.activation_gradients");
  }
  if (IsAuto(codecs.activations)) {
    if (has_boundaries) {
      DP_RETURN_IF_ERROR(ResolveActivations(spec, FactsBeside(*backward, facts),
                                            cap, &codecs));
    } else {
      codecs.activations = "none";
      codecs.notes.push_back("activations: auto is none: one stage sends none");
    }
  }
  if (is_auto_backward && has_boundaries) {
    codecs.notes.push_back(absl::StrCat("activation_gradients: auto is ",
                                        kActivationGradientCodec,
                                        ": eight unbiased bits"));
  }
  if (IsAuto(codecs.gradients)) {
    const std::string& kind = spec.train().optimizer().kind();
    const bool is_one_bit = IsCompressingKind(kind);
    codecs.gradients = is_one_bit ? "sign(block=0)" : "none";
    codecs.notes.push_back(absl::StrCat(
        "gradients: auto is ", codecs.gradients, ": ", kind,
        is_one_bit
            ? absl::StrCat(" compresses ", CompressionBegins(spec.train()))
            : " takes full gradients"));
  }
  const auto forward = StateOf(codecs.activations, spec, facts, cap);
  if (!forward.ok()) {
    return Annotate(forward.status(), "compression.activations");
  }
  // Gradients are sent by the later stage of a boundary.
  for (size_t b = 0; b < facts.boundary_elements.size(); ++b) {
    codecs.upstream_state_bytes.push_back(forward->sender[b] +
                                          backward->receiver[b]);
    codecs.downstream_state_bytes.push_back(forward->receiver[b] +
                                            backward->sender[b]);
  }
  return codecs;
}

int64_t TrainSamplesOfSpec(const v1::JobSpec& spec) {
  if (spec.model().kind() == "synthetic") {
    return spec.model().synthetic().samples();
  }
  if (IsImageModel(spec.model().kind())) {
    const auto views = ParseViewChoice(spec.data().views());
    return views.ok() ? spec.data().samples() * views->count : 0;
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
