// The authority of a coordinator that is known by a hash alone, fetched from
// the coordinator itself: what `--ca-hash` does.
#ifndef DELTAPIPE_BASE_TLS_PINNED_AUTHORITY_H_
#define DELTAPIPE_BASE_TLS_PINNED_AUTHORITY_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/deadline.h"

namespace deltapipe {

/// Shakes hands with the server at `address` ("HOST:PORT"), sends nothing, and
/// returns the certificate of its authority as PEM: the one in the server's
/// chain whose public_key_hash() is `hash` and by which the server's own
/// certificate is made. Blocks, until the deadline at most.
/// PERMISSION_DENIED: another authority's server. UNAVAILABLE: nobody answers,
/// or not in TLS. UNAUTHENTICATED: the server's certificate has expired.
/// INVALID_ARGUMENT: no such address or hash.
absl::StatusOr<std::string> FetchPinnedAuthority(const std::string& address,
                                                 const std::string& hash,
                                                 Clock* clock,
                                                 Deadline deadline);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_PINNED_AUTHORITY_H_
