#include "base/tls/key_pair.h"

#include <openssl/pem.h>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

absl::Status KeyError(const char* action) {
  return absl::InternalError(
      absl::StrCat("cannot ", action, ": ", TakeOpensslError()));
}

}  // namespace

absl::StatusOr<KeyPair> KeyPair::Generate() {
  OpensslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  if (key == nullptr) return KeyError("make a P-256 key");
  return KeyPair(std::move(key));
}

absl::StatusOr<KeyPair> KeyPair::FromPem(const std::string& pem) {
  const OpensslPtr<BIO> bio = ReadBio(pem);
  // The empty password keeps OpenSSL from asking the terminal for one.
  OpensslPtr<EVP_PKEY> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr,
                                                   const_cast<char*>("")));
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("no private key can be read: ", TakeOpensslError(),
                     "; expected PEM, not encrypted"));
  }
  return KeyPair(std::move(key));
}

absl::StatusOr<std::string> KeyPair::ToPem() const {
  const OpensslPtr<BIO> bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr ||
      PEM_write_bio_PKCS8PrivateKey(bio.get(), key_.get(), nullptr, nullptr, 0,
                                    nullptr, nullptr) != 1) {
    return KeyError("write a private key");
  }
  return BioText(bio.get());
}

absl::StatusOr<std::string> KeyPair::MakeSigningRequest() const {
  const OpensslPtr<X509_REQ> request(X509_REQ_new());
  const OpensslPtr<BIO> bio(BIO_new(BIO_s_mem()));
  if (request == nullptr || bio == nullptr ||
      X509_REQ_set_version(request.get(), 0) != 1 ||
      X509_REQ_set_pubkey(request.get(), key_.get()) != 1 ||
      X509_REQ_sign(request.get(), key_.get(), EVP_sha256()) == 0 ||
      PEM_write_bio_X509_REQ(bio.get(), request.get()) != 1) {
    return KeyError("make a request for a certificate");
  }
  return BioText(bio.get());
}

}  // namespace deltapipe
