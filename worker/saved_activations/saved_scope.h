// What the code of a model says about the tensors that autograd saves while it
// runs: which part of the model they belong to, and where they must be kept as
// they are. Free of Torch, so that models need nothing else.
//
//   SavedPart part("blocks.3");      // names the tensors saved in this scope
//   SavedAsTheyAre exact("head");    // nothing saved in this scope is packed
//   SavedFinely fine({q.const_data_ptr(), k.const_data_ptr()});
//   SavedInput input(pixels.const_data_ptr());
//
// Scopes nest; they are of the thread that opens them and cost nothing where
// nothing is packed.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_SCOPE_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_SCOPE_H_

#include <vector>

#include "absl/strings/string_view.h"

namespace deltapipe {

class SavedPart {
 public:
  /// `name` must outlive the scope.
  explicit SavedPart(absl::string_view name);
  ~SavedPart();
  SavedPart(const SavedPart&) = delete;
  SavedPart& operator=(const SavedPart&) = delete;

  /// Of the innermost scope of this thread; "model" without one.
  static absl::string_view Current();

 private:
  const absl::string_view outer_;
};

class SavedAsTheyAre {
 public:
  /// `reason` is for people, and must outlive the scope.
  explicit SavedAsTheyAre(absl::string_view reason);
  ~SavedAsTheyAre();
  SavedAsTheyAre(const SavedAsTheyAre&) = delete;
  SavedAsTheyAre& operator=(const SavedAsTheyAre&) = delete;

  /// Empty outside of such scopes.
  static absl::string_view Current();

 private:
  const absl::string_view outer_;
};

/// Around an attention that does not keep its softmax but computes it again in
/// the backward pass. Tensors whose first elements are at the addresses given
/// are queries and keys: they go through exponentials, behind which an unbiased
/// error is biased, and keep 8 bits or more. What else is saved (values, the
/// result) is subtracted from each other there, so that little is left but
/// their errors: 4 bits or more.
class SavedFinely {
 public:
  explicit SavedFinely(std::vector<const void*> exponents);
  ~SavedFinely();
  SavedFinely(const SavedFinely&) = delete;
  SavedFinely& operator=(const SavedFinely&) = delete;

  /// For a tensor that is saved now; 0 outside of such scopes.
  static int LeastBits(const void* tensor);

 private:
  const std::vector<const void*> exponents_;
  const SavedFinely* const outer_;
};

/// Around an operator that reads a tensor which no gradient flows through and
/// which is none of its statistics: pixels, made from the bytes of images.
class SavedInput {
 public:
  /// The address of its first element.
  explicit SavedInput(const void* input);
  ~SavedInput();
  SavedInput(const SavedInput&) = delete;
  SavedInput& operator=(const SavedInput&) = delete;

  /// Whether a tensor that is saved now is that of the innermost scope.
  static bool Is(const void* tensor);

 private:
  const void* const outer_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_SCOPE_H_
