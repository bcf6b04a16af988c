#include "worker/saved_activations/offered_substitute.h"

#include <utility>

namespace deltapipe {
namespace {

thread_local const OfferedSubstitute* current_offer = nullptr;

}  // namespace

OfferedSubstitute::OfferedSubstitute(const void* tensor,
                                     SavedSubstitute substitute)
    : tensor_(tensor),
      substitute_(substitute),
      outer_(std::exchange(current_offer, this)) {}
OfferedSubstitute::~OfferedSubstitute() { current_offer = outer_; }

SavedSubstitute OfferedSubstitute::For(const void* tensor) {
  const OfferedSubstitute* const offer = current_offer;
  return offer != nullptr && offer->tensor_ == tensor ? offer->substitute_
                                                      : SavedSubstitute::kNone;
}

}  // namespace deltapipe
