#include "base/tls/secret.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/tls/openssl_handle.h"

namespace deltapipe {

absl::StatusOr<std::string> RandomHex(int num_bytes) {
  std::string bytes(static_cast<size_t>(num_bytes), '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&bytes[0]), num_bytes) != 1) {
    return absl::UnavailableError(
        absl::StrCat("cannot draw a secret: ", TakeOpensslError(),
                     ": the system has no randomness to give"));
  }
  return absl::BytesToHexString(bytes);
}

std::string Sha256Hex(absl::string_view bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), sizeof(digest)));
}

bool EqualInConstantTime(absl::string_view a, absl::string_view b) {
  return a.size() == b.size() &&
         CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace deltapipe
