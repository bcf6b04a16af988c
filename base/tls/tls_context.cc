#include "base/tls/tls_context.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/tls/key_pair.h"

namespace deltapipe {
namespace {

// The first is the fastest where the processor has AES.
constexpr char kCipherSuites[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
    "TLS_CHACHA20_POLY1305_SHA256";
// Several records at once come out of the socket.
constexpr size_t kReadBufferBytes = 64 << 10;

bool Configure(SSL_CTX* context, const Certificate& certificate,
               const KeyPair& key, const Certificate& authority) {
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     nullptr);
  SSL_CTX_set_verify_depth(context, 1);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // A resumed session would skip the check of the certificate.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                   SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kReadBufferBytes);
  return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_num_tickets(context, 0) == 1 &&
         SSL_CTX_set_ciphersuites(context, kCipherSuites) == 1 &&
         SSL_CTX_use_certificate(context, certificate.get()) == 1 &&
         SSL_CTX_use_PrivateKey(context, key.get()) == 1 &&
         SSL_CTX_check_private_key(context) == 1 &&
         X509_STORE_add_cert(SSL_CTX_get_cert_store(context),
                             authority.get()) == 1;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const TlsContext>> TlsContext::Create(
    const std::string& identity_pem, const std::string& authority_pem,
    Clock* clock) {
  DP_ASSIGN_OR_RETURN(const KeyPair key, KeyPair::FromPem(identity_pem));
  DP_ASSIGN_OR_RETURN(Certificate certificate,
                      Certificate::FromPem(identity_pem));
  DP_ASSIGN_OR_RETURN(Certificate authority,
                      Certificate::FromPem(authority_pem));
  DP_ASSIGN_OR_RETURN(Identity identity, certificate.identity());
  OpensslPtr<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  if (context == nullptr ||
      !Configure(context.get(), certificate, key, authority)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot use the certificate of ", identity.ToString(), ": ",
        TakeOpensslError(), "; expected a private key and its certificate"));
  }
  return std::shared_ptr<const TlsContext>(
      new TlsContext(std::move(context), std::move(certificate),
                     std::move(authority), std::move(identity), clock));
}

OpensslPtr<SSL> TlsContext::NewSession(TlsRole role) const {
  OpensslPtr<SSL> session(SSL_new(context_.get()));
  if (session == nullptr) return session;
  X509_VERIFY_PARAM_set_time(SSL_get0_param(session.get()),
                             clock_->WallMillis() / 1000);
  if (role == TlsRole::kConnect) {
    SSL_set_connect_state(session.get());
  } else {
    SSL_set_accept_state(session.get());
  }
  return session;
}

absl::StatusOr<Identity> PeerIdentity(SSL* session,
                                      const std::string& cluster) {
  OpensslPtr<X509> shown(SSL_get1_peer_certificate(session));
  if (shown == nullptr) {
    return absl::PermissionDeniedError("the peer showed no certificate");
  }
  DP_ASSIGN_OR_RETURN(Identity identity,
                      Certificate(std::move(shown)).identity());
  if (identity.cluster != cluster) {
    return absl::PermissionDeniedError(
        absl::StrCat("the peer is ", identity.ToString(),
                     ", expected one of the cluster ", cluster));
  }
  return identity;
}

std::string HandshakeFailure(SSL* session) {
  const std::string reason = TakeOpensslError();
  const long verdict = SSL_get_verify_result(session);
  if (verdict == X509_V_OK) return reason;
  return absl::StrCat("the peer's certificate was refused: ",
                      X509_verify_cert_error_string(verdict));
}

}  // namespace deltapipe
