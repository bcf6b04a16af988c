#include "worker/saved_activations/saved_scope.h"

#include <utility>

namespace deltapipe {
namespace {

thread_local absl::string_view current_part = "model";
thread_local absl::string_view current_reason;

}  // namespace

SavedPart::SavedPart(absl::string_view name)
    : outer_(std::exchange(current_part, name)) {}
SavedPart::~SavedPart() { current_part = outer_; }
absl::string_view SavedPart::Current() { return current_part; }

SavedAsTheyAre::SavedAsTheyAre(absl::string_view reason)
    : outer_(std::exchange(current_reason, reason)) {}
SavedAsTheyAre::~SavedAsTheyAre() { current_reason = outer_; }
absl::string_view SavedAsTheyAre::Current() { return current_reason; }

}  // namespace deltapipe
