// A certificate authority and certificates of it, for tests.
#ifndef DELTAPIPE_BASE_TLS_TESTING_IDENTITIES_H_
#define DELTAPIPE_BASE_TLS_TESTING_IDENTITIES_H_

#include <chrono>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/tls/certificate_authority.h"
#include "base/tls/tls_context.h"

namespace deltapipe {

class TestAuthority {
 public:
  explicit TestAuthority(Clock* clock, const std::string& cluster = "c1");

  /// Key and certificate as PEM; an empty `worker` is the coordinator.
  std::string MakeIdentity(
      const std::string& worker,
      std::chrono::milliseconds lifetime = std::chrono::hours(1));
  std::shared_ptr<const TlsContext> MakeContext(
      const std::string& worker,
      std::chrono::milliseconds lifetime = std::chrono::hours(1));

  std::string pem() const { return authority_.certificate().ToPem().value(); }
  const CertificateAuthority& authority() const { return authority_; }

 private:
  Clock* const clock_;
  const CertificateAuthority authority_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_TESTING_IDENTITIES_H_
