// OpenSSL's objects as unique_ptrs, and its error queue as text. Included by
// base/tls and by whoever moves bytes through a TlsSession.
#ifndef DELTAPIPE_BASE_TLS_OPENSSL_HANDLE_H_
#define DELTAPIPE_BASE_TLS_OPENSSL_HANDLE_H_

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

namespace deltapipe {

struct OpensslDeleter {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(X509_REQ* request) const { X509_REQ_free(request); }
  void operator()(X509_STORE* store) const { X509_STORE_free(store); }
  void operator()(X509_STORE_CTX* context) const {
    X509_STORE_CTX_free(context);
  }
  void operator()(X509_EXTENSION* extension) const {
    X509_EXTENSION_free(extension);
  }
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
  void operator()(GENERAL_NAME* name) const { GENERAL_NAME_free(name); }
  void operator()(BIGNUM* number) const { BN_free(number); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* session) const { SSL_free(session); }
};

template <typename Object>
using OpensslPtr = std::unique_ptr<Object, OpensslDeleter>;

/// Takes OpenSSL's errors of this thread; the text of the first, or
/// "no reason given".
std::string TakeOpensslError();

/// What a memory BIO holds.
std::string BioText(BIO* bio);
/// A read-only BIO over `text`, which must outlive it.
OpensslPtr<BIO> ReadBio(const std::string& text);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_OPENSSL_HANDLE_H_
