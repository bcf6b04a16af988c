// KeyPair: a private key on the curve P-256, its public half, and requests for
// certificates signed with it. Move-only; const calls may be made from any
// thread.
//
//   DP_ASSIGN_OR_RETURN(KeyPair key, KeyPair::Generate());
//   DP_ASSIGN_OR_RETURN(std::string request, key.MakeSigningRequest());
#ifndef DELTAPIPE_BASE_TLS_KEY_PAIR_H_
#define DELTAPIPE_BASE_TLS_KEY_PAIR_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/tls/openssl_handle.h"

namespace deltapipe {

class KeyPair {
 public:
  static absl::StatusOr<KeyPair> Generate();
  /// Of the first private key in `pem`. INVALID_ARGUMENT if there is none.
  static absl::StatusOr<KeyPair> FromPem(const std::string& pem);

  /// PKCS #8, not encrypted: for files that only their owner can read.
  absl::StatusOr<std::string> ToPem() const;
  /// A request for a certificate as PEM. It proves that its maker has the key
  /// and names nobody: who the holder is, the authority decides.
  absl::StatusOr<std::string> MakeSigningRequest() const;

  EVP_PKEY* get() const { return key_.get(); }

 private:
  explicit KeyPair(OpensslPtr<EVP_PKEY> key) : key_(std::move(key)) {}
  OpensslPtr<EVP_PKEY> key_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_KEY_PAIR_H_
