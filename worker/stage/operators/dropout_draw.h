// Which values dropout keeps: a function of a counter, drawn again wherever it
// is needed, so that no mask is kept anywhere.
//
// A scope is open around the forward passes of a training step, on their
// thread; without one (evaluation) dropout is the identity. What an element of
// a sample gets depends on (seed, step, sample, place in the model, element)
// alone: not on the other samples of its micro-batch, the cut into stages or
// the number of replicas.
//
//   DropoutScope scope(draw);                   // MicrobatchGraph
//   ... DropoutScope::Current() ...             // operators/dropout.h
//   DropSample(draw, "blocks.3/projection", 0, values, out);
//
// Free of Torch. Srivastava et al., "Dropout", JMLR 15, 2014; inverted: what is
// kept is scaled up, so that evaluation needs no factor.
#ifndef DELTAPIPE_WORKER_STAGE_OPERATORS_DROPOUT_DRAW_H_
#define DELTAPIPE_WORKER_STAGE_OPERATORS_DROPOUT_DRAW_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace deltapipe {

/// Of one micro-batch. Constant once it is made.
struct DropoutDraw {
  uint64_t seed = 0;
  int64_t step = 0;
  /// One per sample, in the order of the tensors' first extent; a view of an
  /// image has a key of its own.
  std::vector<uint64_t> sample_keys;
  /// Share of values that become 0, in [0, 1). Rounded to a multiple of 2^-16,
  /// and exact then: 16 random bits decide about a value.
  double share = 0;

  /// Of 65,536 draws, those that drop.
  uint32_t threshold() const;
  /// What is kept is multiplied by this: one over the share that is kept, with
  /// the rounded share, so that the mean is the value.
  float scale() const;
};

/// out[i] = in[i] * 0 or scale(), the whole tensor of sample `sample` of the
/// micro-batch at `place`, in row-major order. A value that is not finite stays
/// so. `out` may be `in`. At most 2^35 elements.
void DropSample(const DropoutDraw& draw, absl::string_view place, size_t sample,
                absl::Span<const float> in, absl::Span<float> out);

/// Of the thread that opens it; scopes nest. Null: nothing is dropped.
class DropoutScope {
 public:
  /// Nodes of the graph share `draw`, to draw again in the backward pass.
  explicit DropoutScope(std::shared_ptr<const DropoutDraw> draw);
  ~DropoutScope();
  DropoutScope(const DropoutScope&) = delete;
  DropoutScope& operator=(const DropoutScope&) = delete;

  /// Null where nothing is dropped, also for a share that rounds to 0.
  static std::shared_ptr<const DropoutDraw> Current();

 private:
  std::shared_ptr<const DropoutDraw> outer_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_OPERATORS_DROPOUT_DRAW_H_
