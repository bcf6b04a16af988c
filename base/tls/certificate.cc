#include "base/tls/certificate.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <time.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/tls/secret.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxInBundle = 16;

int64_t ToMillis(const ASN1_TIME* time) {
  tm parts = {};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return int64_t{timegm(&parts)} * 1000;
}

}  // namespace

std::string UtcText(int64_t millis) {
  const time_t seconds = static_cast<time_t>(millis / 1000);
  tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[64] = {};
  strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

absl::StatusOr<Certificate> Certificate::FromPem(const std::string& pem) {
  DP_ASSIGN_OR_RETURN(std::vector<Certificate> all, AllFromPem(pem));
  return std::move(all.front());
}

absl::StatusOr<std::vector<Certificate>> Certificate::AllFromPem(
    const std::string& pem) {
  const OpensslPtr<BIO> bio = ReadBio(pem);
  std::vector<Certificate> all;
  while (all.size() < kMaxInBundle) {
    OpensslPtr<X509> next(
        PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (next == nullptr) break;
    all.emplace_back(std::move(next));
  }
  const std::string reason = TakeOpensslError();  // at least that of the end
  if (all.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no certificate can be read: ", reason, "; expected PEM"));
  }
  return all;
}

absl::StatusOr<std::string> Certificate::ToPem() const {
  const OpensslPtr<BIO> bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr ||
      PEM_write_bio_X509(bio.get(), certificate_.get()) != 1) {
    return absl::InternalError(
        absl::StrCat("cannot write a certificate: ", TakeOpensslError()));
  }
  return BioText(bio.get());
}

std::vector<std::string> Certificate::uris() const {
  std::vector<std::string> uris;
  const OpensslPtr<GENERAL_NAMES> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(get(), NID_subject_alt_name, nullptr, nullptr)));
  const int count = names == nullptr ? 0 : sk_GENERAL_NAME_num(names.get());
  for (int i = 0; i < count; ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* const uri = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                      static_cast<size_t>(ASN1_STRING_length(uri)));
  }
  return uris;
}

absl::StatusOr<Identity> Certificate::identity() const {
  const std::vector<std::string> found = uris();
  if (found.size() == 1) {
    auto identity = ParseIdentity(found.front());
    if (identity.ok()) return identity;
  }
  return absl::PermissionDeniedError(absl::StrCat(
      "the certificate does not say whose it is: expected one URI such as "
      "deltapipe://CLUSTER/worker/worker-1, got ",
      found.empty() ? "none" : absl::StrJoin(found, ", ").substr(0, 300)));
}

int64_t Certificate::not_before_millis() const {
  return ToMillis(X509_get0_notBefore(get()));
}

int64_t Certificate::not_after_millis() const {
  return ToMillis(X509_get0_notAfter(get()));
}

bool Certificate::is_authority() const { return X509_check_ca(get()) == 1; }

std::string Certificate::public_key_hash() const {
  unsigned char* encoded = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(get()), &encoded);
  if (size <= 0) return "sha256:";
  const std::string hash = Sha256Hex(
      absl::string_view(reinterpret_cast<const char*>(encoded), size));
  OPENSSL_free(encoded);
  return absl::StrCat("sha256:", hash);
}

absl::Status Certificate::CheckSignedBy(const Certificate& authority,
                                        int64_t now_millis) const {
  const OpensslPtr<X509_STORE> store(X509_STORE_new());
  const OpensslPtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
  if (store == nullptr || context == nullptr ||
      X509_STORE_add_cert(store.get(), authority.get()) != 1 ||
      X509_STORE_CTX_init(context.get(), store.get(), get(), nullptr) != 1) {
    return absl::InternalError(
        absl::StrCat("cannot check a certificate: ", TakeOpensslError()));
  }
  X509_VERIFY_PARAM* const rules = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_time(rules, now_millis / 1000);
  X509_VERIFY_PARAM_set_depth(rules, 1);
  X509_VERIFY_PARAM_set_purpose(rules, X509_PURPOSE_SSL_CLIENT);
  if (X509_verify_cert(context.get()) == 1) return absl::OkStatus();
  const int error = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  const auto who = identity();
  const std::string name = who.ok() ? who->ToString() : "a stranger";
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return absl::UnauthenticatedError(absl::StrCat(
          "the certificate of ", name, " expired at ",
          UtcText(not_after_millis()), ", now it is ", UtcText(now_millis),
          ": join again with a new token, or set the clocks right"));
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return absl::UnauthenticatedError(absl::StrCat(
          "the certificate of ", name, " is valid from ",
          UtcText(not_before_millis()), " on, now it is ", UtcText(now_millis),
          ": set the clocks of both machines right"));
    default:
      return absl::PermissionDeniedError(absl::StrCat(
          "the certificate of ", name, " was not made by the authority ",
          authority.public_key_hash(), " (",
          X509_verify_cert_error_string(error),
          "): join this cluster with a token of its coordinator"));
  }
}

}  // namespace deltapipe
