// Dropout of models, which keeps nothing for the backward pass but a key: the
// values that were dropped are drawn again there.
//
//   value = Dropout(value, "blocks.3", "projection");
//   value = DroppedRelu(value, "layers.2", "relu");
//
// Outside of a DropoutScope (operators/dropout_draw.h) they add no node and
// change no bit. On a device other than the CPU factors are drawn on the host
// and uploaded, so that the same values are dropped on all devices. Errors are
// LibTorch's exceptions.
#ifndef DELTAPIPE_WORKER_STAGE_OPERATORS_DROPOUT_H_
#define DELTAPIPE_WORKER_STAGE_OPERATORS_DROPOUT_H_

#include "ATen/core/Tensor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

/// `input` [samples, ...] of any floating type, times 0 or DropoutDraw::scale()
/// (computed in fp32). `layer` and `place` name where in the model that is:
/// the name must be the same for any cut and be used once in a forward pass.
at::Tensor Dropout(const at::Tensor& input, absl::string_view layer,
                   absl::string_view place);

/// Dropout(relu(input)): its result alone is kept, as that of a relu is, which
/// is what the next matrix product keeps anyway. Where a value is above 0 it
/// was neither cut off nor dropped.
at::Tensor DroppedRelu(const at::Tensor& input, absl::string_view layer,
                       absl::string_view place);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_OPERATORS_DROPOUT_H_
