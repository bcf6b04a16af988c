// What hooks throw: LibTorch calls them, and takes no Status.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_ACTIVATION_ERROR_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_ACTIVATION_ERROR_H_

#include <stdexcept>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace deltapipe {

class SavedActivationError : public std::runtime_error {
 public:
  explicit SavedActivationError(absl::Status status)
      : std::runtime_error(std::string(status.message())),
        status_(std::move(status)) {}
  const absl::Status& status() const { return status_; }

 private:
  const absl::Status status_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_ACTIVATION_ERROR_H_
