#include "coordinator/spec/validate.h"

#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/image_model.h"
#include "base/image_options.h"
#include "base/latency_model.h"
#include "base/layer_partition.h"
#include "base/mixed_sizes.h"
#include "base/optimizer_kind.h"
#include "base/straggler_policy.h"
#include "base/units.h"
#include "compression/bit_plan/saved_policy.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/boundary_spec.h"
#include "coordinator/spec/field_rules.h"
#include "coordinator/spec/synchronisation.h"
#include "coordinator/spec/unused_groups.h"

namespace deltapipe {
namespace {

constexpr int kMaxNameLength = 63;
/// The largest share of a text that is not trained on.
constexpr double kMaxHeldOut = 0.9;
/// What one message of a transport holds, less its table.
constexpr int64_t kMaxBoundaryTensorBytes = int64_t{1000} << 20;

bool IsJobName(const std::string& name) {
  if (name.empty() || name.size() > kMaxNameLength) return false;
  for (const char c : name) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '-') {
      return false;
    }
  }
  return name.front() != '-' && name.back() != '-';
}

/// Values of one sample's tensor between two stages, at most.
int64_t LargestBoundary(const v1::ModelSpec& model) {
  // Later groups halve both sides and double the channels.
  const BoundaryShape shape =
      BoundaryShapeOf(model.kind(), /*end_layer=*/1, model.layers(),
                      model.width(), model.context());
  return shape.rows * shape.columns;
}

/// Checks one spec; `unusable` grows by every field found wrong.
class MutualRules {
 public:
  MutualRules(const v1::JobSpec& spec, std::set<std::string> unusable,
              std::vector<SpecViolation>* violations)
      : spec_(spec), unusable_(std::move(unusable)), violations_(violations) {}

  void Check() {
    CheckName();
    CheckModel();
    CheckData();
    CheckViews();
    CheckImageSizes();
    CheckTrain();
    CheckOptimizer();
    CheckGroups();
    CheckShardState();
    CheckPrecision();
    CheckParallel();
    CheckPartition();
    CheckSchedule();
    CheckNodes();
    CheckStragglers();
    CheckNetwork();
    CheckSavedActivations();
    CheckSizes();
    CheckGradientCodec();
    CheckNodeGradients();
  }

 private:
  bool AreUsable(std::initializer_list<const char*> fields) const {
    for (const char* field : fields) {
      if (unusable_.count(field) > 0) return false;
    }
    return true;
  }

  void Add(const std::string& field, const std::string& message) {
    violations_->push_back({"", field, message});
    unusable_.insert(field);
  }

  void CheckName() {
    if (!AreUsable({"name"}) || IsJobName(spec_.name())) return;
    Add("name", absl::StrCat("expected 1..", kMaxNameLength,
                             " of a-z, 0-9 and '-', with no '-' at either "
                             "end, got ",
                             spec_.name().empty()
                                 ? std::string("nothing")
                                 : absl::StrCat("'", spec_.name(), "'")));
  }

  void CheckModel() {
    const v1::ModelSpec& model = spec_.model();
    if (AreUsable({"model.kind", "model.tied"}) && model.kind() != "gpt" &&
        model.tied() == "on") {
      Add("model.tied",
          absl::StrCat("expected off with model.kind ", model.kind(),
                       ", got on; gpt can tie its head to its embedding"));
    }
    if (model.kind() != "gpt") return;
    if (!AreUsable({"model.kind", "model.width", "model.heads"})) return;
    if (model.width() % model.heads() == 0) return;
    Add("model.heads", absl::StrCat("expected a divisor of model.width (",
                                    model.width(), "), got ", model.heads()));
  }

  void CheckData() {
    const v1::DataSpec& data = spec_.data();
    const std::string& model = spec_.model().kind();
    const bool is_image = IsImageModel(model);
    if (AreUsable({"model.kind", "data.kind"}) &&
        (data.kind() == "fashion_mnist") != is_image) {
      Add("data.kind",
          absl::StrCat("expected ", is_image ? "fashion_mnist" : "bytes",
                       " with model.kind ", model, ", got ", data.kind()));
    }
    if (AreUsable({"data.kind", "data.validation"}) && !is_image &&
        data.validation() > kMaxHeldOut) {
      Add("data.validation",
          absl::StrCat("expected at most ", kMaxHeldOut,
                       " of a text, the rest of which is trained on, got ",
                       ShortestNumber(data.validation())));
    }
    if (!AreUsable({"model.kind", "data.path"}) || model == "synthetic" ||
        !data.path().empty()) {
      return;
    }
    Add("data.path", absl::StrCat("expected the path of a ",
                                  is_image ? "folder of images" : "text",
                                  " to train on, got nothing"));
  }

  void CheckViews() {
    const char* field = "data.views";
    if (!AreUsable({field, "data.kind"}) ||
        spec_.data().kind() != "fashion_mnist") {
      return;
    }
    const auto views = ParseViewChoice(spec_.data().views());
    if (!views.ok()) {
      Add(field, std::string(views.status().message()));
    } else if (views->is_unbounded) {
      CheckKeepsNothing("compression.activations",
                        spec_.compression().activations());
      CheckKeepsNothing("compression.activation_gradients",
                        spec_.compression().activation_gradients());
    } else if (AreUsable({"train.microbatch"}) &&
               spec_.train().microbatch() % views->count != 0) {
      Add(field, absl::StrCat("expected a divisor of train.microbatch (",
                              spec_.train().microbatch(),
                              "), which holds all views of its samples, got ",
                              views->count));
    }
  }

  void CheckKeepsNothing(const char* field, const std::string& codec) {
    if (!AreUsable({field}) || codec == "auto") return;
    const auto bytes = PredictBoundaryBytes(codec, 1, 64);
    bool is_delta = false;
    CheckBoundaryCodec(codec, &is_delta).IgnoreError();  // told for its field
    if (!is_delta && (!bytes.ok() || bytes->state_per_sample == 0)) return;
    Add(field, absl::StrCat(
                   "expected a codec that remembers no sample, such as int(8), "
                   "with data.views: unbounded, which never shows a tensor "
                   "twice, got '",
                   codec, "'"));
  }

  void CheckImageSizes() {
    const char* field = "data.sizes";
    const std::string& text = spec_.data().sizes();
    if (!AreUsable({field, "data.kind"}) || text.empty() ||
        spec_.data().kind() != "fashion_mnist") {
      return;
    }
    const auto sizes = ParseSizeShares(text);
    if (!sizes.ok()) {
      Add(field, std::string(sizes.status().message()));
    } else if (spec_.model().kind() != "resnet") {
      Add(field, absl::StrCat("expected nothing with model.kind ",
                              spec_.model().kind(),
                              ", which takes images of one size, got '", text,
                              "'; resnet takes any"));
    } else if (AreUsable({"parallel.stages"}) &&
               spec_.parallel().stages() > 1 && !MixedSizes(text).empty()) {
      CheckRemembersNothing("compression.activations",
                            spec_.compression().activations(),
                            /*direction=*/0);
      CheckRemembersNothing("compression.activation_gradients",
                            spec_.compression().activation_gradients(),
                            /*direction=*/1);
    }
  }

  void CheckRemembersNothing(const char* field, const std::string& codec,
                             uint32_t direction) {
    if (!AreUsable({field}) || codec == "auto") return;
    const auto parsed = ParseBoundarySpec(codec, direction);
    if (!parsed.ok() || !parsed->Remembers()) return;  // told for its field
    Add(field,
        absl::StrCat("expected a codec that remembers nothing, such as int(8), "
                     "with data.sizes, which brings the images of each "
                     "micro-batch to another size, got '",
                     codec, "'"));
  }

  void CheckTrain() {
    const v1::TrainSpec& train = spec_.train();
    if (!AreUsable({"train.batch", "train.microbatch", "parallel.replicas"})) {
      return;
    }
    if (AreUsable({"model.kind", "model.synthetic.samples"}) &&
        spec_.model().kind() == "synthetic" &&
        spec_.model().synthetic().samples() < train.batch()) {
      Add("train.batch",
          absl::StrCat("expected at most model.synthetic.samples (",
                       spec_.model().synthetic().samples(), "), got ",
                       train.batch()));
    }
    const int64_t unit =
        int64_t{spec_.parallel().replicas()} * train.microbatch();
    if (train.batch() % unit == 0) return;
    const int64_t below = train.batch() / unit * unit;
    const std::string nearest = below > 0
                                    ? absl::StrCat(below, " or ", below + unit)
                                    : absl::StrCat(unit);
    Add("train.batch",
        absl::StrCat("expected a multiple of parallel.replicas x "
                     "train.microbatch (",
                     spec_.parallel().replicas(), " x ", train.microbatch(),
                     " = ", unit, "), such as ", nearest, ", got ",
                     train.batch()));
  }

  void CheckOptimizer() {
    const v1::OptimizerSpec& optimizer = spec_.train().optimizer();
    if (!AreUsable({"train.optimizer.kind"})) return;
    const char* epsilon = "train.optimizer.epsilon";
    if (AreUsable({epsilon}) && optimizer.kind() != "sgd" &&
        optimizer.epsilon() <= 0) {
      Add(epsilon,
          absl::StrCat("expected more than 0 with train.optimizer.kind ",
                       optimizer.kind(), ", got 0"));
    }
    CheckCompressionStart();
    if (AreUsable({"train.optimizer.min_coefficient",
                   "train.optimizer.max_coefficient"}) &&
        optimizer.min_coefficient() > optimizer.max_coefficient()) {
      Add("train.optimizer.min_coefficient",
          absl::StrCat("expected at most max_coefficient (",
                       ShortestNumber(optimizer.max_coefficient()), "), got ",
                       ShortestNumber(optimizer.min_coefficient())));
    }
  }

  void CheckCompressionStart() {
    const v1::TrainSpec& train = spec_.train();
    const char* field = "train.optimizer.compress_after_step";
    if (!AreUsable({field, "train.steps", "compression.gradients"})) return;
    if (!IsCompressingKind(train.optimizer().kind()) ||
        IsPlainGradientCodec(spec_.compression().gradients())) {
      return;
    }
    const StepChoice choice =
        *ParseStepChoice(train.optimizer().compress_after_step());
    if (choice.is_auto) return;
    if (choice.At(train.steps()) < 1) {
      Add(field,
          "expected 1 or more: the variance has to be learned from gradients "
          "in full precision first, got 0");
    } else if (choice.At(train.steps()) > train.steps()) {
      Add(field, absl::StrCat("expected at most train.steps (", train.steps(),
                              "), which is never, got ", choice.steps));
    }
  }

  void CheckGroups() {
    const v1::OptimizerSpec& optimizer = spec_.train().optimizer();
    const auto match_of = [](int i) {
      return JoinPath(ElementPath("train.optimizer.groups", i), "match");
    };
    bool are_usable = AreUsable({"train.optimizer.groups", "model.kind",
                                 "model.layers", "model.tied", "model.norm"});
    for (int i = 0; i < optimizer.groups_size(); ++i) {
      const std::string group = ElementPath("train.optimizer.groups", i);
      if (unusable_.count(group) > 0 || unusable_.count(match_of(i)) > 0) {
        are_usable = false;
      } else if (optimizer.groups(i).match().empty()) {
        Add(match_of(i),
            "expected the names of parameters, with * for any characters, such "
            "as \"*.bias\", got nothing");
        are_usable = false;
      }
    }
    if (!are_usable) return;
    for (const auto& [i, why] : UnusedGroups(spec_)) Add(match_of(i), why);
  }

  void CheckShardState() {
    const char* field = "train.optimizer.shard_state";
    if (!AreUsable({field, "train.optimizer.kind", "parallel.replicas"}) ||
        spec_.train().optimizer().shard_state() != "on") {
      return;
    }
    const std::string& kind = spec_.train().optimizer().kind();
    if (IsCompressingKind(kind)) {
      // Two phases of one bit, against one of them and weights in fp32.
      const int replicas = std::max(spec_.parallel().replicas(), 2);
      const double share = 1 - 1.0 / replicas;
      Add(field,
          absl::StrFormat(
              "expected off with train.optimizer.kind %s, whose ranks all "
              "compress the whole momentum: with a share of the state each, a "
              "rank would send at least %.3g bytes per parameter and step (%d "
              "replicas), since weights travel exactly, in place of %.3g; take "
              "adamw to save memory, or off to save bytes",
              kind, share * (4 + 1.0 / 8), replicas, share * 2 / 8));
    } else if (AreUsable({"parallel.nodes"}) && spec_.parallel().nodes() > 0) {
      Add(field,
          "expected off with parallel.nodes, which sums gradients node by "
          "node, got on");
    }
  }

  void CheckPrecision() {
    const v1::TrainSpec& train = spec_.train();
    if (!AreUsable({"train.precision"})) return;
    if (AreUsable({"model.kind"}) && spec_.model().kind() == "synthetic" &&
        train.precision() != "fp32") {
      Add("train.precision",
          absl::StrCat("expected fp32 with model.kind synthetic, which "
                       "computes nothing, got ",
                       train.precision()));
    }
    const char* field = "train.loss_scale";
    if (!AreUsable({field}) || train.loss_scale() == "auto") return;
    double scale = 0;
    constexpr double kMaxLossScale = 1 << 24;
    if (!absl::SimpleAtod(train.loss_scale(), &scale) ||
        !(scale >= 1 && scale <= kMaxLossScale)) {
      Add(field, absl::StrCat("expected auto, or a number from 1 to ",
                              ShortestNumber(kMaxLossScale), ", got '",
                              train.loss_scale(), "'"));
    } else if (train.precision() != "fp16") {
      Add(field,
          absl::StrCat("expected auto with train.precision ", train.precision(),
                       ", whose gradients do not vanish (fp16's do), got ",
                       train.loss_scale()));
    }
  }

  void CheckNodes() {
    if (!AreUsable({"parallel.nodes", "parallel.replicas"})) return;
    const int nodes = spec_.parallel().nodes();
    const int replicas = spec_.parallel().replicas();
    if (nodes == 0 || replicas % nodes == 0) return;
    Add("parallel.nodes",
        nodes > replicas
            ? absl::StrCat("expected at most parallel.replicas (", replicas,
                           "), got ", nodes)
            : absl::StrCat("expected a divisor of parallel.replicas (",
                           replicas, "), got ", nodes));
  }

  void CheckStragglers() {
    const v1::StragglerSpec& stragglers = spec_.stragglers();
    const char* tau = "stragglers.tau";
    if (AreUsable({tau}) && stragglers.tau() != "auto" &&
        ParseDuration(stragglers.tau())->count() <= 0) {
      Add(tau, "expected more than 0, or auto, got 0");
    }
    const auto injected =
        LatencyModel::Parse(stragglers.inject(), spec_.seed());
    const absl::Status usable =
        injected.ok() && AreUsable({"parallel.replicas"})
            ? injected->CheckReplicas(spec_.parallel().replicas())
            : injected.status();
    if (!usable.ok()) {
      Add("stragglers.inject", std::string(usable.message()));
    }
    if (!AreUsable({"stragglers.policy", "train.batch", "train.microbatch",
                    "parallel.replicas"}) ||
        !(MayDropWork(stragglers.policy()) ||
          MayMoveWork(stragglers.policy()))) {
      return;
    }
    if (stragglers.policy() == "rebalance" && spec_.parallel().replicas() < 2) {
      Add("stragglers.policy",
          "expected none or detect with one replica, which has no other to "
          "give work to, got rebalance");
      return;
    }
    const int microbatches =
        spec_.train().batch() /
        (spec_.train().microbatch() * spec_.parallel().replicas());
    if (microbatches >= 2) return;
    Add("stragglers.policy",
        absl::StrCat("expected none or detect where a replica has one "
                     "micro-batch a step, which leaves nothing to ",
                     MayDropWork(stragglers.policy()) ? "drop" : "move",
                     ", got ", stragglers.policy(),
                     "; a smaller train.microbatch makes more of them"));
  }

  void CheckParallel() {
    if (!AreUsable({"parallel.stages", "model.layers"})) return;
    if (spec_.parallel().stages() <= spec_.model().layers()) return;
    Add("parallel.stages",
        absl::StrCat("expected at most one stage per layer (model.layers: ",
                     spec_.model().layers(), "), got ",
                     spec_.parallel().stages()));
  }

  void CheckPartition() {
    const char* field = "parallel.partition";
    if (!AreUsable({field, "parallel.stages", "model.layers", "model.kind"})) {
      return;
    }
    const std::string& text = spec_.parallel().partition();
    const auto partition = ParseLayerPartition(text);
    if (!partition.ok()) {
      Add(field, std::string(partition.status().message()));
      return;
    }
    if (partition->kind != LayerPartition::Kind::kGiven) return;
    if (spec_.model().kind() == "synthetic") {
      Add(field, absl::StrCat("expected auto with model.kind synthetic, whose "
                              "stages are all alike, got '",
                              text, "'"));
      return;
    }
    const std::vector<int>& layers = partition->layers;
    const int64_t sum =
        std::accumulate(layers.begin(), layers.end(), int64_t{0});
    if (layers.size() != static_cast<size_t>(spec_.parallel().stages()) ||
        sum != spec_.model().layers()) {
      Add(field,
          absl::StrCat("expected the layers of parallel.stages (",
                       spec_.parallel().stages(), ") stages, model.layers (",
                       spec_.model().layers(), ") in all, got '", text,
                       "': ", sum, " in ", layers.size()));
    }
  }

  void CheckSchedule() {
    const char* field = "parallel.schedule";
    if (!AreUsable({field}) || spec_.parallel().schedule() != "2bw") return;
    if (AreUsable({"train.batch", "train.microbatch", "parallel.replicas",
                   "parallel.stages"})) {
      const int stages = spec_.parallel().stages();
      const int64_t microbatches =
          spec_.train().batch() /
          (int64_t{spec_.train().microbatch()} * spec_.parallel().replicas());
      if (microbatches < stages) {
        Add(field,
            absl::StrCat("expected at least as many micro-batches a step as "
                         "stages (",
                         stages, ") with 2bw, got ", microbatches,
                         "; a smaller train.microbatch makes more of them"));
      }
    }
    if (spec_.train().optimizer().kind() == "zero_one_adam") {
      Add(field,
          "expected gpipe or 1f1b with zero_one_adam, whose replicas differ "
          "between synchronisations, got 2bw");
    }
    const std::string& policy = spec_.stragglers().policy();
    if (AreUsable({"stragglers.policy"}) && policy != "none" &&
        policy != "detect") {
      Add("stragglers.policy",
          absl::StrCat("expected none or detect with parallel.schedule: 2bw, "
                       "whose steps overlap, got ",
                       policy));
    }
  }

  void CheckNetwork() {
    if (!AreUsable({"network.transport", "parallel.device"})) return;
    if (spec_.network().transport() != "nccl" ||
        spec_.parallel().device() != "cpu") {
      return;
    }
    Add("network.transport",
        "expected tcp with parallel.device cpu, got nccl, which moves bytes "
        "between GPUs: take tcp, or parallel.device cuda");
  }

  void CheckSavedActivations() {
    const char* field = "compression.saved_activations";
    if (!AreUsable({field, "parallel.device"}) ||
        spec_.parallel().device() != "cpu") {
      return;
    }
    const std::string& policy = spec_.compression().saved_activations();
    const auto made = MakeSavedPolicy(policy);
    if (!made.ok() || !(*made)->MovesToHost()) return;
    Add(field, absl::StrCat(
                   "expected no offload with parallel.device cpu, whose memory "
                   "is the host's, got ",
                   policy,
                   ": take fixed(codec), or auto without offload, or "
                   "parallel.device cuda"));
  }

  void CheckSizes() {
    if (AreUsable({"data.limit"}) && *ParseBytes(spec_.data().limit()) == 0) {
      Add("data.limit", "expected more than 0 bytes, or 'all', got 0");
    }
    if (spec_.parallel().stages() > 1 &&
        AreUsable({"train.microbatch", "model.context", "model.width"})) {
      const v1::ModelSpec& model = spec_.model();
      const int64_t bytes =
          int64_t{4} * spec_.train().microbatch() * LargestBoundary(model);
      if (bytes > kMaxBoundaryTensorBytes) {
        Add("train.microbatch",
            absl::StrCat("expected tensors of at most ",
                         FormatBytes(kMaxBoundaryTensorBytes),
                         " between stages (train.microbatch x ",
                         model.kind() == "resnet" ? absl::StrCat(kImagePixels)
                                                  : "model.context",
                         " x model.width x 4 bytes), got ",
                         FormatBytes(static_cast<double>(bytes))));
      }
    }
    const char* budget = "failure.detection_budget";
    if (AreUsable({budget}) &&
        *ParseDuration(spec_.failure().detection_budget()) <
            std::chrono::milliseconds(100)) {
      Add(budget, absl::StrCat("expected 100ms or more, got ",
                               spec_.failure().detection_budget()));
    }
  }

  void CheckGradientCodec() {
    if (!AreUsable({"train.optimizer.kind", "compression.gradients"})) return;
    const std::string& kind = spec_.train().optimizer().kind();
    const std::string& codec = spec_.compression().gradients();
    if (IsCompressingKind(kind) || codec == "auto" ||
        IsPlainGradientCodec(codec)) {
      return;
    }
    Add("compression.gradients",
        absl::StrCat("expected auto, none or cast(bf16) with "
                     "train.optimizer.kind ",
                     kind,
                     " (onebit_adam, onebit_lamb and zero_one_adam compress), "
                     "got '",
                     codec, "'"));
  }

  void CheckNodeGradients() {
    const char* field = "compression.node_gradients";
    if (!AreUsable({field, "parallel.nodes", "parallel.replicas"}) ||
        spec_.compression().node_gradients() == "none") {
      return;
    }
    const int nodes = spec_.parallel().nodes();
    const int replicas = spec_.parallel().replicas();
    if (nodes > 1 && nodes < replicas) return;
    Add(field,
        absl::StrCat("expected none unless parallel.nodes (", nodes,
                     ") puts several of parallel.replicas (", replicas,
                     ") on each of two or more nodes, got ",
                     spec_.compression().node_gradients(),
                     "; compression.gradients says how they travel else"));
  }

  const v1::JobSpec& spec_;
  std::set<std::string> unusable_;
  std::vector<SpecViolation>* violations_;
};

}  // namespace

std::vector<SpecViolation> FindViolations(
    const v1::JobSpec& spec, const std::set<std::string>& unreadable_fields) {
  std::vector<SpecViolation> violations;
  std::set<std::string> unusable = unreadable_fields;
  ForEachScalar(spec, [&](const std::string& path,
                          const google::protobuf::FieldDescriptor& field,
                          const google::protobuf::Message& owner) {
    if (unusable.count(path) > 0) return;
    const std::string problem = CheckField(field, owner);
    if (problem.empty()) return;
    violations.push_back({"", path, problem});
    unusable.insert(path);
  });
  MutualRules(spec, std::move(unusable), &violations).Check();
  return violations;
}

std::vector<SpecViolation> ValidateJobSpec(const v1::JobSpec& spec) {
  return FindViolations(spec, {});
}

}  // namespace deltapipe
