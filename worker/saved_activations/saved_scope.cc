#include "worker/saved_activations/saved_scope.h"

#include <algorithm>
#include <utility>

namespace deltapipe {
namespace {

thread_local absl::string_view current_part = "model";
thread_local absl::string_view current_reason;
thread_local const SavedFinely* current_fine = nullptr;
thread_local const void* current_input = nullptr;

}  // namespace

SavedPart::SavedPart(absl::string_view name)
    : outer_(std::exchange(current_part, name)) {}
SavedPart::~SavedPart() { current_part = outer_; }
absl::string_view SavedPart::Current() { return current_part; }

SavedAsTheyAre::SavedAsTheyAre(absl::string_view reason)
    : outer_(std::exchange(current_reason, reason)) {}
SavedAsTheyAre::~SavedAsTheyAre() { current_reason = outer_; }
absl::string_view SavedAsTheyAre::Current() { return current_reason; }

SavedFinely::SavedFinely(std::vector<const void*> exponents)
    : exponents_(std::move(exponents)),
      outer_(std::exchange(current_fine, this)) {}
SavedFinely::~SavedFinely() { current_fine = outer_; }
int SavedFinely::LeastBits(const void* tensor) {
  if (current_fine == nullptr) return 0;
  const std::vector<const void*>& exponents = current_fine->exponents_;
  const bool is_exponent =
      std::find(exponents.begin(), exponents.end(), tensor) != exponents.end();
  return is_exponent ? 8 : 4;
}

SavedInput::SavedInput(const void* input)
    : outer_(std::exchange(current_input, input)) {}
SavedInput::~SavedInput() { current_input = outer_; }
bool SavedInput::Is(const void* tensor) {
  return tensor != nullptr && tensor == current_input;
}

}  // namespace deltapipe
