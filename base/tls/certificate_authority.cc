#include "base/tls/certificate_authority.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "base/tls/secret.h"

namespace deltapipe {
namespace {

constexpr std::chrono::hours kAuthorityLifetime(24 * 3650);
constexpr size_t kMaxRequestBytes = 8192;
constexpr char kClusterPrefix[] = "deltapipe://";

absl::Status MakeError(const char* what) {
  return absl::InternalError(absl::StrCat("cannot make a certificate: ", what,
                                          ": ", TakeOpensslError()));
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const OpensslPtr<X509_EXTENSION> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  return extension != nullptr &&
         X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool AddName(GENERAL_NAMES* names, int type, const std::string& text) {
  OpensslPtr<GENERAL_NAME> name(GENERAL_NAME_new());
  if (name == nullptr) return false;
  if (type == GEN_IPADD) {
    ASN1_OCTET_STRING* const address = a2i_IPADDRESS(text.c_str());
    if (address == nullptr) return false;
    GENERAL_NAME_set0_value(name.get(), GEN_IPADD, address);
  } else {
    ASN1_IA5STRING* const value = ASN1_IA5STRING_new();
    if (value == nullptr ||
        ASN1_STRING_set(value, text.data(), static_cast<int>(text.size())) !=
            1) {
      ASN1_IA5STRING_free(value);
      return false;
    }
    GENERAL_NAME_set0_value(name.get(), type, value);
  }
  return sk_GENERAL_NAME_push(names, name.release()) > 0;
}

bool IsAddress(const std::string& host) {
  ASN1_OCTET_STRING* const address = a2i_IPADDRESS(host.c_str());
  ASN1_OCTET_STRING_free(address);
  TakeOpensslError();
  return address != nullptr;
}

// Added as objects, not as text: no name can smuggle in another.
bool AddNames(X509* certificate, const std::string& uri,
              const std::vector<std::string>& hosts) {
  const OpensslPtr<GENERAL_NAMES> names(GENERAL_NAMES_new());
  if (names == nullptr || !AddName(names.get(), GEN_URI, uri)) return false;
  for (const std::string& host : hosts) {
    if (!AddName(names.get(), IsAddress(host) ? GEN_IPADD : GEN_DNS, host)) {
      return false;
    }
  }
  return X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0,
                           X509V3_ADD_DEFAULT) == 1;
}

// Version, serial number, name and times.
bool FillBasics(X509* certificate, const std::string& name, int64_t from_millis,
                int64_t until_millis) {
  const OpensslPtr<BIGNUM> serial(BN_new());
  X509_NAME* const subject = X509_get_subject_name(certificate);
  return serial != nullptr &&
         BN_rand(serial.get(), 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate)) !=
             nullptr &&
         X509_set_version(certificate, X509_VERSION_3) == 1 &&
         ASN1_TIME_set(X509_getm_notBefore(certificate), from_millis / 1000) !=
             nullptr &&
         ASN1_TIME_set(X509_getm_notAfter(certificate), until_millis / 1000) !=
             nullptr &&
         X509_NAME_add_entry_by_txt(
             subject, "CN", MBSTRING_UTF8,
             reinterpret_cast<const unsigned char*>(name.data()),
             static_cast<int>(name.size()), -1, 0) == 1;
}

absl::StatusOr<OpensslPtr<X509_REQ>> ReadRequest(const std::string& pem) {
  if (pem.size() > kMaxRequestBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the request for a certificate has ", pem.size(),
                     " bytes, expected at most ", kMaxRequestBytes));
  }
  const OpensslPtr<BIO> bio = ReadBio(pem);
  OpensslPtr<X509_REQ> request(
      PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr));
  EVP_PKEY* const key =
      request == nullptr ? nullptr : X509_REQ_get0_pubkey(request.get());
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the request for a certificate cannot be read: ", TakeOpensslError(),
        "; expected PEM"));
  }
  char group[64] = {};
  size_t size = 0;
  if (EVP_PKEY_is_a(key, "EC") != 1 ||
      EVP_PKEY_get_group_name(key, group, sizeof(group), &size) != 1 ||
      std::string(group) != "prime256v1") {
    return absl::InvalidArgumentError(
        "the request for a certificate has another kind of key: expected one "
        "on the curve P-256");
  }
  if (X509_REQ_verify(request.get(), key) != 1) {
    TakeOpensslError();
    return absl::InvalidArgumentError(
        "the request for a certificate is not signed with its own key");
  }
  return request;
}

}  // namespace

absl::StatusOr<CertificateAuthority> CertificateAuthority::Create(
    const std::string& cluster, int64_t now_millis) {
  if (!IsIdentityName(cluster)) {
    return absl::InvalidArgumentError(
        absl::StrCat("bad name of a cluster: expected a-z, 0-9 and '-', got '",
                     cluster, "'"));
  }
  DP_ASSIGN_OR_RETURN(KeyPair key, KeyPair::Generate());
  OpensslPtr<X509> made(X509_new());
  X509* const raw = made.get();
  const int64_t until =
      now_millis +
      std::chrono::milliseconds(std::chrono::hours(kAuthorityLifetime)).count();
  if (raw == nullptr ||
      !FillBasics(raw, absl::StrCat("deltapipe authority ", cluster),
                  now_millis - kClockSlack.count(), until) ||
      X509_set_issuer_name(raw, X509_get_subject_name(raw)) != 1 ||
      X509_set_pubkey(raw, key.get()) != 1 ||
      !AddExtension(raw, raw, NID_basic_constraints,
                    "critical,CA:TRUE,pathlen:0") ||
      !AddExtension(raw, raw, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !AddExtension(raw, raw, NID_subject_key_identifier, "hash") ||
      !AddNames(raw, kClusterPrefix + cluster, {}) ||
      X509_sign(raw, key.get(), EVP_sha256()) == 0) {
    return MakeError("an authority's");
  }
  return CertificateAuthority(std::move(key), Certificate(std::move(made)),
                              cluster);
}

absl::StatusOr<CertificateAuthority> CertificateAuthority::FromPem(
    const std::string& key_pem, const std::string& certificate_pem) {
  DP_ASSIGN_OR_RETURN(KeyPair key, KeyPair::FromPem(key_pem));
  DP_ASSIGN_OR_RETURN(Certificate certificate,
                      Certificate::FromPem(certificate_pem));
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    TakeOpensslError();
    return absl::InvalidArgumentError(
        "the authority's key and certificate do not belong together: restore "
        "both from one backup");
  }
  const std::vector<std::string> uris = certificate.uris();
  absl::string_view cluster;
  if (!uris.empty()) cluster = uris.front();
  if (!certificate.is_authority() || uris.size() != 1 ||
      !absl::ConsumePrefix(&cluster, kClusterPrefix) ||
      !IsIdentityName(cluster)) {
    return absl::InvalidArgumentError(
        "the certificate is not that of a deltapipe authority: expected one "
        "that may sign others and has the URI deltapipe://CLUSTER");
  }
  std::string name(cluster);
  return CertificateAuthority(std::move(key), std::move(certificate),
                              std::move(name));
}

absl::StatusOr<std::string> CertificateAuthority::Sign(
    const std::string& signing_request, const CertificateOrder& order,
    int64_t now_millis) const {
  if (order.identity.cluster != cluster_ ||
      !ParseIdentity(order.identity.ToString()).ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot make a certificate for ", order.identity.ToString(),
        ": expected a name of a-z, 0-9 "
        "and '-' in the cluster ",
        cluster_));
  }
  DP_ASSIGN_OR_RETURN(const OpensslPtr<X509_REQ> request,
                      ReadRequest(signing_request));
  OpensslPtr<X509> made(X509_new());
  X509* const raw = made.get();
  // A certificate does not outlive its authority.
  const int64_t until = std::min(now_millis + order.lifetime.count(),
                                 certificate_.not_after_millis());
  const std::string name =
      order.identity.is_worker() ? order.identity.worker : "coordinator";
  if (raw == nullptr ||
      !FillBasics(raw, name, now_millis - kClockSlack.count(), until) ||
      X509_set_issuer_name(raw, X509_get_subject_name(certificate_.get())) !=
          1 ||
      X509_set_pubkey(raw, X509_REQ_get0_pubkey(request.get())) != 1 ||
      !AddExtension(raw, certificate_.get(), NID_basic_constraints,
                    "critical,CA:FALSE") ||
      !AddExtension(raw, certificate_.get(), NID_key_usage,
                    "critical,digitalSignature") ||
      !AddExtension(raw, certificate_.get(), NID_ext_key_usage,
                    "serverAuth,clientAuth") ||
      !AddExtension(raw, certificate_.get(), NID_subject_key_identifier,
                    "hash") ||
      !AddExtension(raw, certificate_.get(), NID_authority_key_identifier,
                    "keyid:always") ||
      !AddNames(raw, order.identity.ToString(), order.hosts) ||
      X509_sign(raw, key_.get(), EVP_sha256()) == 0) {
    return MakeError(name.c_str());
  }
  return Certificate(std::move(made)).ToPem();
}

absl::StatusOr<std::string> RequestedKeyHash(
    const std::string& signing_request) {
  DP_ASSIGN_OR_RETURN(const OpensslPtr<X509_REQ> request,
                      ReadRequest(signing_request));
  unsigned char* encoded = nullptr;
  const int size =
      i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(request.get()), &encoded);
  if (size <= 0) return MakeError("reading a public key");
  std::string hash = Sha256Hex(
      absl::string_view(reinterpret_cast<const char*>(encoded), size));
  OPENSSL_free(encoded);
  return absl::StrCat("sha256:", hash);
}

}  // namespace deltapipe
