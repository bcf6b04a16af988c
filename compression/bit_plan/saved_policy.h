// SavedPolicy: how the tensors that autograd saves for the backward pass are
// kept in memory.
//
// worker/saved_activations finds out what a tensor is, asks the policy about
// those that may be compressed, packs them as it says and tells it from time to
// time what was measured. One file below policies/ and one row of
// saved_policies.def per policy; job specs name it by its text, in the grammar
// of codecs: "actnn(bits=2)".
//
//   DP_ASSIGN_OR_RETURN(auto policy, MakeSavedPolicy("fixed(int(4))"));
//   const SavedTreatment treatment = policy->Treat(tensor);
//   if (treatment.codec == nullptr) KeepAsItIs(treatment.reason);
//
// One thread at a time. Between two calls of Plan, Treat is a function of its
// argument: what is in flight is decoded by what its payload says, so that a
// new plan holds for what is saved from then on.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_SAVED_POLICY_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_SAVED_POLICY_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"

namespace deltapipe {

/// What the operator that saves a tensor could do with in its place. Of its
/// own operators only: LibTorch's have no choice.
enum class SavedSubstitute {
  kNone,
  /// The operator's derivative at the tensor, of as many elements: gelu.
  kDerivative,
  /// The operator's result, which is kept in any case: layer norm.
  kOutput,
};

/// A floating-point tensor that may be compressed. What may not (weights,
/// integers, masks, statistics, what the loss head saves) never gets here.
struct SavedTensor {
  /// The same for this tensor in every micro-batch and step, and unlike that of
  /// any other in the stage: "blocks.3/gelu/0".
  std::string name;
  /// The layer that saves it, "blocks.3", and the operator that computed it,
  /// "gelu"; "input" for what no operator of the stage computed.
  std::string layer;
  std::string op;
  /// As saved, slowest extent first; the first one counts samples.
  std::vector<int64_t> shape;
  int64_t num_elements = 0;
  int element_bytes = 4;
  /// A relu's result: zeros and signs must be restored exactly. The bridge
  /// wraps the codec in nonzero(...), whatever the policy says.
  bool keeps_zeros = false;
  /// The bridge keeps it in so many bits or more, whatever the policy says:
  /// what attention saves.
  int least_bits = 0;
  SavedSubstitute substitute = SavedSubstitute::kNone;
};

/// How to keep one tensor.
struct SavedTreatment {
  /// Null: as it is.
  std::shared_ptr<const Codec> codec;
  /// Packed bytes go to pinned host memory, where the device is not the host.
  bool is_offloaded = false;
  /// For people: "int(4): 3.8 of 4.0 bits on average".
  std::string reason;
  /// The operator keeps the substitute that it can do with, the derivative by
  /// `codec`, and the tensor not at all. Never where it can do with none.
  bool takes_substitute = false;
};

/// What a policy wants to be told.
struct SavedMeasures {
  /// Squared ranges of tensors and squared norms of the gradients of what they
  /// went into, measured on one micro-batch every so many steps; 0: never.
  int every_steps = 0;
  /// Also how far the gradient of the stage moves with tensors at few bits.
  enum class Sensitivities {
    kNone,
    /// With all tensors that go from one operator to another one at 2 bits,
    /// shared out among them as GradientVariance says: one more forward and
    /// backward pass for each pair of operators.
    kByOperator,
    /// With each tensor at 1 bit, as GACT has it: three more passes a tensor.
    kByTensor,
  };
  Sensitivities sensitivities = Sensitivities::kNone;
  /// With kByOperator, also with derivatives in the place of tensors whose
  /// operators can do with them.
  bool derivatives = false;
};

/// What was measured of one tensor. Quantities that were not are NaN.
struct SavedMeasurement {
  SavedTensor tensor;
  /// Sum over groups of 256 elements, in memory order, of (max - min)^2.
  double range_squares = 0;
  /// Sum of squares, and mean of magnitudes, of the gradient of the output of
  /// the operator that reads the tensor in the backward pass, and its elements.
  double gradient_squares = 0;
  double gradient_mean_abs = 0;
  int64_t gradient_elements = 0;
  /// The operator that reads it: "addmm", "convolution".
  std::string reader;
  /// The taps of a convolution's kernel over its groups, whatever its stride; 1
  /// for a matrix product.
  double reuse = 1;
  /// Elements per channel; 0: as the shape says (NumPositions).
  int64_t positions = 0;
  /// By how much more than on average samples of large ranges are those of
  /// large gradients: N sum r_n g_n / (sum r_n sum g_n), r_n and g_n being
  /// their parts of range_squares and gradient_squares; 1 where it was not
  /// measured.
  double alignment = 1;
  /// Share of elements that are not zero.
  double nonzero_share = 1;
  /// Mean of magnitudes of the layer's parameter gradients.
  double parameter_gradient_mean_abs = 0;
  /// Twice the variance of the gradient with the tensor at 1 bit: by tensor the
  /// squared distance of gradients under two keys, or twice that of either to 8
  /// bits if it is larger (GACT, section 4).
  double sensitivity = 0;
  /// The same with the operator's derivative at 1 bit in the tensor's place;
  /// NaN where it can do with none, or it was not measured.
  double derivative_sensitivity = std::numeric_limits<double>::quiet_NaN();
};

/// What a stage's budget of memory is shared by.
struct SavedRoom {
  /// Micro-batches that wait for their backward pass at a time, at most.
  int in_flight = 1;
  /// What one of them keeps as it is, whatever the policy says.
  int64_t exempt_bytes = 0;
  /// Layers whose forward can be done again in the backward pass: what one
  /// micro-batch's input of the layer takes, the layer's part of exempt_bytes,
  /// and what is alive beside the input once it is computed again, of one
  /// layer and one micro-batch in a worker at a time.
  struct Layer {
    std::string name;
    int64_t input_bytes = 0;
    int64_t exempt_bytes = 0;
    int64_t recomputed_bytes = 0;
  };
  std::vector<Layer> layers;
  /// Of exempt_bytes, what is saved behind all layers: given back before the
  /// first one is computed again.
  int64_t head_bytes = 0;
};

class SavedPolicy {
 public:
  virtual ~SavedPolicy() = default;

  /// Canonical: MakeSavedPolicy(text()) makes an equal policy.
  virtual std::string text() const = 0;
  virtual SavedTreatment Treat(const SavedTensor& tensor) const = 0;
  virtual SavedMeasures measures() const = 0;

  /// Between two steps, after a measurement: all tensors of the stage that may
  /// be compressed. `step` is the one that comes. No measurements change
  /// nothing; what was measured as no finite number keeps its tensor at 8 bits.
  /// RESOURCE_EXHAUSTED, with the smallest one that works, if a budget is too
  /// small; the former plan then holds.
  virtual absl::Status Plan(
      int64_t step, absl::Span<const SavedMeasurement> measurements) = 0;
  /// Before Plan; policies without a budget need not know.
  virtual void SetRoom(const SavedRoom& /*room*/) {}
  /// A probe found the gradient's error with the tensors of `op` above
  /// what is allowed: they move up one level (1, 2, 4, 8 bits, as they are) for
  /// the rest of the run. Returns what became of them, for people; empty if
  /// they are kept as they are already.
  virtual std::string Raise(absl::string_view op) = 0;

  /// Layers whose forward is done again in the backward pass, in groups of so
  /// many; 0: none but those of RecomputedLayers.
  virtual int recompute_every() const = 0;
  /// Layers whose forward is done again, each by itself, by name. Constant
  /// between two calls of Plan.
  virtual std::vector<std::string> RecomputedLayers() const { return {}; }
  /// Whether packed bytes may go to host memory, which is another one than the
  /// tensors' only where these are on a device.
  virtual bool MovesToHost() const { return false; }

  /// What Plan and Raise decided, so that a job that goes on from a checkpoint
  /// decides alike. INVALID_ARGUMENT if `state` is of another policy.
  virtual std::string Save() const = 0;
  virtual absl::Status Restore(absl::string_view state) = 0;
};

struct SavedPolicyInfo {
  using Maker = absl::StatusOr<std::unique_ptr<SavedPolicy>> (*)(
      const CodecArguments& arguments);
  absl::string_view name;
  absl::string_view summary;
  absl::string_view source;
  absl::Span<const CodecParameter> parameters;
  Maker make = nullptr;
};

/// In the order of saved_policies.def.
const std::vector<SavedPolicyInfo>& AllSavedPolicies();

/// INVALID_ARGUMENT names the position, what was expected and the nearest known
/// name, as MakeCodec does.
absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeSavedPolicy(
    absl::string_view text);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_SAVED_POLICY_H_
