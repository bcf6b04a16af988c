// Certificate: an X.509 certificate, read only, and its check against the
// certificate authority of a cluster.
//
//   DP_ASSIGN_OR_RETURN(Certificate leaf, Certificate::FromPem(pem));
//   DP_RETURN_IF_ERROR(leaf.CheckSignedBy(authority, clock->WallMillis()));
//   DP_ASSIGN_OR_RETURN(Identity who, leaf.identity());
#ifndef DELTAPIPE_BASE_TLS_CERTIFICATE_H_
#define DELTAPIPE_BASE_TLS_CERTIFICATE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/tls/identity.h"
#include "base/tls/openssl_handle.h"

namespace deltapipe {

class Certificate {
 public:
  explicit Certificate(OpensslPtr<X509> certificate)
      : certificate_(std::move(certificate)) {}
  /// The first certificate in `pem`. INVALID_ARGUMENT if there is none.
  static absl::StatusOr<Certificate> FromPem(const std::string& pem);
  /// All of them, in order; at most 16.
  static absl::StatusOr<std::vector<Certificate>> AllFromPem(
      const std::string& pem);

  absl::StatusOr<std::string> ToPem() const;

  /// PERMISSION_DENIED unless there is exactly one URI, and it is an identity.
  absl::StatusOr<Identity> identity() const;
  /// The URIs of the subject alternative names, as they are.
  std::vector<std::string> uris() const;
  /// Since the Unix epoch; 0 where the certificate says nothing sound.
  int64_t not_before_millis() const;
  int64_t not_after_millis() const;
  bool is_authority() const;
  /// "sha256:" and the hash of the public key (of its SubjectPublicKeyInfo),
  /// which stays when the certificate is made anew with the same key.
  std::string public_key_hash() const;

  /// Checks signature, times and constraints at `now_millis`.
  /// UNAUTHENTICATED: expired, or not valid yet. PERMISSION_DENIED: another
  /// authority's, or not made to show who somebody is.
  absl::Status CheckSignedBy(const Certificate& authority,
                             int64_t now_millis) const;

  X509* get() const { return certificate_.get(); }

 private:
  OpensslPtr<X509> certificate_;
};

/// "2026-11-21 19:30:05 UTC".
std::string UtcText(int64_t millis);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_CERTIFICATE_H_
