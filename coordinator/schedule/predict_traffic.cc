#include "coordinator/schedule/predict_traffic.h"

#include <chrono>
#include <memory>

#include "absl/strings/match.h"
#include "base/optimizer_kind.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/delta/boundary_codec.h"
#include "coordinator/spec/synchronisation.h"

namespace deltapipe {
namespace {

absl::StatusOr<LinkFacts> Read(const v1::LinkSpec& spec) {
  LinkFacts facts;
  if (!spec.bandwidth().empty()) {
    DP_ASSIGN_OR_RETURN(facts.bits_per_second,
                        ParseBandwidth(spec.bandwidth()));
  }
  if (!spec.latency().empty()) {
    DP_ASSIGN_OR_RETURN(const auto latency, ParseDuration(spec.latency()));
    facts.latency_seconds = std::chrono::duration<double>(latency).count();
  }
  return facts;
}

/// Of one micro-batch, for what `stage` sends, or receives, in tensors of this
/// shape; no rows: unknown.
absl::StatusOr<BoundaryBytes> PredictShape(const BoundaryShape& shape,
                                           int64_t elements,
                                           const std::string& codec,
                                           int microbatch_samples) {
  std::string bound = codec;
  if (shape.rows > 0) {
    DP_ASSIGN_OR_RETURN(bound,
                        BindTensorShape(codec, {shape.rows, shape.columns}));
  }
  return PredictBoundaryBytes(bound, microbatch_samples, elements);
}

int64_t ElementsOf(const BoundaryShape& shape) {
  return shape.rows * shape.columns;
}

/// Mean over the shapes of micro-batches.
absl::StatusOr<BoundaryBytes> PredictBody(const StageCost& stage,
                                          const std::string& codec,
                                          int microbatch_samples) {
  if (stage.mixed_shapes.empty()) {
    return PredictShape(stage.output_shape, stage.output_elements, codec,
                        microbatch_samples);
  }
  BoundaryBytes mean;
  for (const ShapeShare& sized : stage.mixed_shapes) {
    DP_ASSIGN_OR_RETURN(const BoundaryBytes bytes,
                        PredictShape(sized.shape, ElementsOf(sized.shape),
                                     codec, microbatch_samples));
    mean.first_visit += sized.share * bytes.first_visit;
    mean.later_visit += sized.share * bytes.later_visit;
  }
  return mean;
}

double MeanElements(const StageCost& stage) {
  if (stage.mixed_shapes.empty()) {
    return static_cast<double>(stage.output_elements);
  }
  double mean = 0;
  for (const ShapeShare& sized : stage.mixed_shapes) {
    mean += sized.share * static_cast<double>(ElementsOf(sized.shape));
  }
  return mean;
}

double WireSeconds(double bytes, const LinkFacts& link) {
  return link.bits_per_second > 0 ? bytes * 8 / link.bits_per_second : 0;
}

}  // namespace

absl::StatusOr<LinkFacts> LinkFactsOf(const v1::NetworkSpec& network) {
  auto emulated = Read(network.emulate());
  if (!emulated.ok()) return Annotate(emulated.status(), "network.emulate");
  auto expected = Read(network.expected());
  if (!expected.ok()) return Annotate(expected.status(), "network.expected");
  if (emulated->bits_per_second == 0) {
    emulated->bits_per_second = expected->bits_per_second;
  }
  if (emulated->latency_seconds == 0) {
    emulated->latency_seconds = expected->latency_seconds;
  }
  return *emulated;
}

absl::StatusOr<std::vector<v1::LinkPlan>> PredictBoundaries(
    const std::vector<StageCost>& stages, const std::string& activations,
    const std::string& gradients, int microbatch_samples,
    int num_microbatches) {
  std::vector<v1::LinkPlan> links;
  for (size_t b = 0; b + 1 < stages.size(); ++b) {
    const auto predict = [&](const std::string& codec) {
      return PredictBody(stages[b], codec, microbatch_samples);
    };
    auto forward = predict(activations);
    if (!forward.ok()) {
      return Annotate(forward.status(), "compression.activations");
    }
    auto backward = predict(gradients);
    if (!backward.ok()) {
      return Annotate(backward.status(), "compression.activation_gradients");
    }
    const double raw =
        4.0 * MeanElements(stages[b]) * microbatch_samples * num_microbatches;
    v1::LinkPlan link;
    link.set_boundary(static_cast<int>(b));
    link.set_activation_raw_bytes(raw);
    link.set_activation_wire_bytes((forward->later_visit + kFrameBytes) *
                                   num_microbatches);
    link.set_gradient_raw_bytes(raw);
    link.set_gradient_wire_bytes((backward->later_visit + kFrameBytes) *
                                 num_microbatches);
    link.set_first_visit_wire_bytes((forward->first_visit + kFrameBytes) *
                                    num_microbatches);
    links.push_back(link);
  }
  return links;
}

SyncTraffic PredictPlainSync(int64_t parameters, int num_replicas,
                             double bytes_per_parameter,
                             const LinkFacts& link) {
  if (num_replicas < 2 || parameters == 0) return {};
  const double messages = 2.0 * (num_replicas - 1);
  const double message_bytes =
      bytes_per_parameter * static_cast<double>(parameters) / num_replicas +
      kFrameBytes;
  return {messages * message_bytes,
          messages * (WireSeconds(message_bytes, link) + link.latency_seconds)};
}

absl::StatusOr<SyncTraffic> PredictCompressedSync(int64_t parameters,
                                                  int num_replicas,
                                                  const std::string& codec,
                                                  const LinkFacts& link) {
  const int64_t per_shard = 8LL * num_replicas;
  const int64_t shard = 8 * ((parameters + per_shard - 1) / per_shard);
  double message_bytes = 4.0 * static_cast<double>(shard) + kFrameBytes;
  if (codec != "identity") {
    auto made = MakeCodec(codec);
    if (!made.ok()) return Annotate(made.status(), "compression.gradients");
    message_bytes =
        static_cast<double>((*made)->MaxPayloadBytes(shard)) + kFrameBytes;
  }
  if (num_replicas < 2 || parameters == 0) return SyncTraffic{};
  // Every rank sends to every other in both phases, over links of their own.
  return SyncTraffic{
      2.0 * (num_replicas - 1) * message_bytes,
      2 * (WireSeconds(message_bytes, link) + link.latency_seconds)};
}

namespace {

/// What a rank sends inside its node: a slice to each of the others, and
/// `gathered` bytes of its own slice's result.
double InNodeBytes(const v1::JobSpec& spec, int64_t parameters,
                   int ranks_in_node, double gathered) {
  const bool is_half =
      absl::StartsWith(spec.compression().node_gradients(), "cast");
  const double others = ranks_in_node - 1;
  const double slice =
      (is_half ? 2.0 : 4.0) * static_cast<double>(parameters) / ranks_in_node;
  return others * (slice + gathered + 2 * kFrameBytes);
}

}  // namespace

absl::StatusOr<StageSync> PredictSync(const v1::JobSpec& spec,
                                      const std::string& gradient_codec,
                                      int64_t parameters) {
  DP_ASSIGN_OR_RETURN(const LinkFacts link, LinkFactsOf(spec.network()));
  int replicas = spec.parallel().replicas();
  // By nodes, a slice of the vector crosses the network, among as many ranks as
  // there are nodes.
  const int nodes = spec.parallel().nodes();
  const int in_node = nodes > 1 && nodes < replicas ? replicas / nodes : 1;
  const int64_t whole = parameters;
  parameters = (parameters + in_node - 1) / in_node;
  replicas /= in_node;
  const bool is_one_bit = IsCompressingKind(spec.train().optimizer().kind());
  const std::string& plain = is_one_bit && !IsPlainGradientCodec(gradient_codec)
                                 ? spec.compression().plain_gradients()
                                 : gradient_codec;
  const bool is_half = absl::StartsWith(plain, "cast");
  StageSync sync;
  // Where state is shared out, weights come back in fp32 in place of gradients.
  const bool is_sharded = spec.train().optimizer().shard_state() == "on";
  const double bytes_per_parameter = !is_half ? 4 : is_sharded ? 3 : 2;
  sync.plain =
      PredictPlainSync(parameters, replicas, bytes_per_parameter, link);
  sync.compressed = sync.plain;
  if (is_one_bit) {
    DP_ASSIGN_OR_RETURN(
        sync.compressed,
        PredictCompressedSync(parameters, replicas, gradient_codec, link));
  }
  if (in_node > 1 && replicas > 1) {
    // A result comes in the messages of the second phase, half of what is sent
    // among as many ranks less one.
    const double half = replicas / (2.0 * (replicas - 1));
    const double packed = half * sync.compressed.bytes;
    sync.plain.bytes +=
        InNodeBytes(spec, whole, in_node,
                    is_half ? half * sync.plain.bytes
                            : 4.0 * static_cast<double>(parameters));
    sync.compressed.bytes +=
        is_one_bit ? InNodeBytes(spec, whole, in_node, packed) : 0;
    if (!is_one_bit) sync.compressed = sync.plain;
  }
  return sync;
}

absl::StatusOr<StageSync> PredictTiedSync(const v1::JobSpec& spec,
                                          const std::string& gradient_codec,
                                          int64_t tied_parameters,
                                          int num_stages) {
  if (tied_parameters == 0 || num_stages < 2) return StageSync();
  v1::JobSpec group = spec;
  group.mutable_parallel()->set_replicas(num_stages *
                                         spec.parallel().replicas());
  group.mutable_parallel()->set_nodes(0);
  group.mutable_train()->mutable_optimizer()->set_shard_state("off");
  return PredictSync(group, gradient_codec, tied_parameters);
}

absl::StatusOr<StageSync> PredictStageSync(const v1::JobSpec& spec,
                                           const std::string& gradient_codec,
                                           int64_t parameters,
                                           int64_t tied_parameters,
                                           int num_tied_stages) {
  DP_ASSIGN_OR_RETURN(
      StageSync sync,
      PredictSync(spec, gradient_codec, parameters - tied_parameters));
  DP_ASSIGN_OR_RETURN(
      const StageSync tied,
      PredictTiedSync(spec, gradient_codec, tied_parameters, num_tied_stages));
  const auto add = [](const SyncTraffic& part, SyncTraffic* whole) {
    whole->bytes += part.bytes;
    whole->seconds += part.seconds;
  };
  add(tied.plain, &sync.plain);
  add(tied.compressed, &sync.compressed);
  return sync;
}

}  // namespace deltapipe
