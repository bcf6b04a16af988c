#include "base/tls/testing_identities.h"

namespace deltapipe {

TestAuthority::TestAuthority(Clock* clock, const std::string& cluster)
    : clock_(clock),
      authority_(
          CertificateAuthority::Create(cluster, clock->WallMillis()).value()) {}

std::string TestAuthority::MakeIdentity(const std::string& worker,
                                        std::chrono::milliseconds lifetime) {
  const KeyPair key = KeyPair::Generate().value();
  CertificateOrder order;
  order.identity = {authority_.cluster(), worker};
  order.lifetime = lifetime;
  return key.ToPem().value() + authority_
                                   .Sign(key.MakeSigningRequest().value(),
                                         order, clock_->WallMillis())
                                   .value();
}

std::shared_ptr<const TlsContext> TestAuthority::MakeContext(
    const std::string& worker, std::chrono::milliseconds lifetime) {
  return TlsContext::Create(MakeIdentity(worker, lifetime), pem(), clock_)
      .value();
}

}  // namespace deltapipe
