// Secrets that people or programs show: drawn from the system's randomness,
// compared in constant time, kept as hashes.
//
// A token has 256 random bits, so one round of SHA-256 is enough to keep it: no
// dictionary holds it, and a slow hash would only slow down each call.
#ifndef DELTAPIPE_BASE_TLS_SECRET_H_
#define DELTAPIPE_BASE_TLS_SECRET_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

/// `num_bytes` random bytes as hexadecimal digits. UNAVAILABLE: the system has
/// no randomness to give.
absl::StatusOr<std::string> RandomHex(int num_bytes);

/// SHA-256 of `bytes` as 64 hexadecimal digits.
std::string Sha256Hex(absl::string_view bytes);

/// Whether they are equal; takes as long for any two texts of these lengths.
bool EqualInConstantTime(absl::string_view a, absl::string_view b);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_SECRET_H_
