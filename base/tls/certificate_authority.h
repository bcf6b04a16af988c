// CertificateAuthority: the key that makes certificates for one cluster.
//
// Owned by the coordinator; const calls may be made from any thread. Keeps no
// list of what it made: certificates are short-lived and made anew before they
// expire.
#ifndef DELTAPIPE_BASE_TLS_CERTIFICATE_AUTHORITY_H_
#define DELTAPIPE_BASE_TLS_CERTIFICATE_AUTHORITY_H_

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/tls/certificate.h"
#include "base/tls/identity.h"
#include "base/tls/key_pair.h"

namespace deltapipe {

struct CertificateOrder {
  Identity identity;
  std::chrono::milliseconds lifetime = std::chrono::hours(24);
  /// Names and addresses of a server, for clients that check them.
  std::vector<std::string> hosts;
};

/// How long before now certificates are valid: clocks differ.
inline constexpr std::chrono::milliseconds kClockSlack =
    std::chrono::minutes(5);

class CertificateAuthority {
 public:
  /// A new key and a certificate for 10 years, for a new cluster.
  static absl::StatusOr<CertificateAuthority> Create(const std::string& cluster,
                                                     int64_t now_millis);
  /// INVALID_ARGUMENT unless key and certificate belong together and the
  /// certificate is an authority's with a cluster's name.
  static absl::StatusOr<CertificateAuthority> FromPem(
      const std::string& key_pem, const std::string& certificate_pem);

  /// A certificate as PEM for the key that made `signing_request`.
  /// INVALID_ARGUMENT: the request cannot be read, is not signed with its key,
  /// its key is not on P-256, or the order names nobody.
  absl::StatusOr<std::string> Sign(const std::string& signing_request,
                                   const CertificateOrder& order,
                                   int64_t now_millis) const;

  const std::string& cluster() const { return cluster_; }
  const Certificate& certificate() const { return certificate_; }
  const KeyPair& key() const { return key_; }

 private:
  CertificateAuthority(KeyPair key, Certificate certificate,
                       std::string cluster)
      : key_(std::move(key)),
        certificate_(std::move(certificate)),
        cluster_(std::move(cluster)) {}

  KeyPair key_;
  Certificate certificate_;
  std::string cluster_;
};

/// The hash of the public key in a signing request, as of Certificate.
/// INVALID_ARGUMENT as for Sign.
absl::StatusOr<std::string> RequestedKeyHash(
    const std::string& signing_request);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_CERTIFICATE_AUTHORITY_H_
