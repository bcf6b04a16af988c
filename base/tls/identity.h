// Identity: who a certificate says its holder is, as the one URI in its subject
// alternative names: "deltapipe://3f9c2a1b/worker/worker-3",
// "deltapipe://3f9c2a1b/coordinator".
//
// The cluster is the random name of a certificate authority, so that two
// clusters never take each other's workers.
#ifndef DELTAPIPE_BASE_TLS_IDENTITY_H_
#define DELTAPIPE_BASE_TLS_IDENTITY_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

struct Identity {
  std::string cluster;
  std::string worker;  // empty: the coordinator

  bool is_worker() const { return !worker.empty(); }
  std::string ToString() const;

  friend bool operator==(const Identity& a, const Identity& b) {
    return a.cluster == b.cluster && a.worker == b.worker;
  }
  friend bool operator!=(const Identity& a, const Identity& b) {
    return !(a == b);
  }
};

/// The host that every coordinator's certificate names, and no worker's:
/// clients check it in place of the address, which may be any.
inline constexpr char kCoordinatorHost[] = "coordinator.deltapipe";

/// INVALID_ARGUMENT unless `uri` is exactly what ToString writes.
absl::StatusOr<Identity> ParseIdentity(absl::string_view uri);

/// Whether `name` can be a cluster's or a worker's: 1 to 63 of a-z, 0-9 and
/// '-', the first of which is no '-'.
bool IsIdentityName(absl::string_view name);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_IDENTITY_H_
