// TlsContext: what one side of mutual TLS 1.3 needs: its key and certificates,
// and the authority that its peers' certificates must be made by.
//
// Immutable and thread-safe. A renewed certificate is another TlsContext:
// sessions that exist keep theirs. CurrentTlsContext holds the one for new
// sessions; it is shared by whoever renews it and the transports that use it.
//
//   DP_ASSIGN_OR_RETURN(auto context,
//       TlsContext::Create(identity_pem, authority_pem, Clock::Real()));
//   OpensslPtr<SSL> session = context->NewSession(TlsRole::kConnect);
#ifndef DELTAPIPE_BASE_TLS_TLS_CONTEXT_H_
#define DELTAPIPE_BASE_TLS_TLS_CONTEXT_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/tls/certificate.h"
#include "base/tls/identity.h"
#include "base/tls/openssl_handle.h"

namespace deltapipe {

enum class TlsRole { kConnect, kAccept };

class TlsContext {
 public:
  /// `identity_pem` holds a private key and its certificate, in any order.
  /// INVALID_ARGUMENT if they cannot be read or do not belong together;
  /// `clock` is what peers' certificates are checked by.
  static absl::StatusOr<std::shared_ptr<const TlsContext>> Create(
      const std::string& identity_pem, const std::string& authority_pem,
      Clock* clock);

  /// A session in which the peer must show a certificate that is valid now and
  /// made by the authority. Null if there is no memory.
  OpensslPtr<SSL> NewSession(TlsRole role) const;

  const Identity& identity() const { return identity_; }
  const Certificate& certificate() const { return certificate_; }
  const Certificate& authority() const { return authority_; }

 private:
  TlsContext(OpensslPtr<SSL_CTX> context, Certificate certificate,
             Certificate authority, Identity identity, Clock* clock)
      : context_(std::move(context)),
        certificate_(std::move(certificate)),
        authority_(std::move(authority)),
        identity_(std::move(identity)),
        clock_(clock) {}

  const OpensslPtr<SSL_CTX> context_;
  const Certificate certificate_;
  const Certificate authority_;
  const Identity identity_;
  Clock* const clock_;
};

class CurrentTlsContext {
 public:
  explicit CurrentTlsContext(std::shared_ptr<const TlsContext> context)
      : context_(std::move(context)) {}
  std::shared_ptr<const TlsContext> Get() const {
    MutexLock lock(&mutex_);
    return context_;
  }
  void Set(std::shared_ptr<const TlsContext> context) {
    MutexLock lock(&mutex_);
    context_.swap(context);
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const TlsContext> context_ DP_GUARDED_BY(mutex_);
};

/// Whom the peer of a session that has shaken hands has shown to be, in
/// `cluster`. PERMISSION_DENIED: nobody, or of another cluster.
absl::StatusOr<Identity> PeerIdentity(SSL* session, const std::string& cluster);

/// Why a handshake failed, as a sentence's end: the certificate's fault if that
/// was it, else OpenSSL's reason. Takes OpenSSL's errors of this thread.
std::string HandshakeFailure(SSL* session);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_TLS_CONTEXT_H_
