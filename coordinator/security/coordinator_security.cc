#include "coordinator/security/coordinator_security.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/tls/private_file.h"
#include "base/tls/secret.h"
#include "coordinator/security/folder_lock.h"
#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

using Json = nlohmann::json;

constexpr int kClusterBytes = 4;
constexpr std::chrono::hours kAdminLifetime(24 * 365);
constexpr int64_t kMaxWorkers = 1'000'000;

absl::StatusOr<CertificateAuthority> LoadAuthority(const std::string& folder) {
  DP_ASSIGN_OR_RETURN(const std::string key,
                      ReadPrivateFile(folder + "/authority.key"));
  DP_ASSIGN_OR_RETURN(const std::string certificate,
                      ReadFile(folder + "/authority.pem", 1 << 20));
  auto authority = CertificateAuthority::FromPem(key, certificate);
  if (!authority.ok()) {
    return Annotate(authority.status(),
                    absl::StrCat("the authority in ", folder));
  }
  return authority;
}

// The key goes last: where it is, everything is.
absl::StatusOr<CertificateAuthority> MakeAuthority(const std::string& folder,
                                                   int64_t now_millis) {
  DP_ASSIGN_OR_RETURN(const std::string cluster, RandomHex(kClusterBytes));
  DP_ASSIGN_OR_RETURN(CertificateAuthority authority,
                      CertificateAuthority::Create(cluster, now_millis));
  DP_ASSIGN_OR_RETURN(const std::string certificate,
                      authority.certificate().ToPem());
  DP_ASSIGN_OR_RETURN(const std::string key, authority.key().ToPem());
  DP_RETURN_IF_ERROR(
      WriteFileAtomically(folder + "/authority.pem", certificate));
  DP_RETURN_IF_ERROR(WritePrivateFile(folder + "/authority.key", key));
  return authority;
}

/// The N of "worker-N"; 0 if it is no such name.
int64_t NumberOf(absl::string_view name) {
  int64_t number = 0;
  return absl::ConsumePrefix(&name, "worker-") &&
                 absl::SimpleAtoi(name, &number) && number >= 1 &&
                 number <= kMaxWorkers && absl::StrCat(number) == name
             ? number
             : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorSecurity>> CoordinatorSecurity::Open(
    SecurityOptions options) {
  DP_RETURN_IF_ERROR(MakePrivateFolder(options.folder));
  const int64_t now = options.clock->WallMillis();
  auto authority = LoadAuthority(options.folder);
  const bool is_new = absl::IsNotFound(authority.status());
  if (is_new) authority = MakeAuthority(options.folder, now);
  if (!authority.ok()) return authority.status();
  std::unique_ptr<CoordinatorSecurity> security(
      new CoordinatorSecurity(std::move(options), *std::move(authority)));
  DP_RETURN_IF_ERROR(security->OpenParts(is_new));
  return security;
}

std::string SecurityFolderOf(const std::string& store_path) {
  return absl::StrCat(absl::StripSuffix(store_path, ".db"), ".security");
}

absl::StatusOr<std::unique_ptr<CoordinatorSecurity>>
CoordinatorSecurity::OpenExisting(SecurityOptions options) {
  const auto authority = LoadAuthority(options.folder);
  if (absl::IsNotFound(authority.status())) {
    return absl::NotFoundError(absl::StrCat(
        "no coordinator with TLS was started here yet: ", options.folder,
        " holds no authority; start `deltapipe coordinator --tls` once, or "
        "name its store with --store"));
  }
  return Open(std::move(options));
}

absl::Status CoordinatorSecurity::OpenParts(bool is_new) {
  DP_ASSIGN_OR_RETURN(tokens_,
                      TokenBook::Open(options_.folder, options_.clock));
  DP_ASSIGN_OR_RETURN(audit_, AuditLog::Open(options_.folder, options_.clock));
  authorizer_ = std::make_unique<Authorizer>(
      &authority_.certificate(), cluster(), tokens_.get(), options_.clock);
  DP_RETURN_IF_ERROR(RenewOwn());
  if (is_new) {
    NewToken admin;
    admin.name = "the first admin";
    admin.scope = TokenScope::kAdmin;
    admin.lifetime = kAdminLifetime;
    DP_ASSIGN_OR_RETURN(const IssuedToken issued, tokens_->Create(admin));
    DP_RETURN_IF_ERROR(
        WritePrivateFile(admin_token_path(), issued.secret + "\n"));
  }
  renewer_ = Thread("renew-own", [this] { RenewLoop(); });
  return absl::OkStatus();
}

CoordinatorSecurity::~CoordinatorSecurity() { stopped_.Cancel(); }

absl::Status CoordinatorSecurity::RenewOwn() {
  const int64_t now = options_.clock->WallMillis();
  const auto present = ReadPrivateFile(own_pem_path());
  if (present.ok()) {
    const auto certificate = Certificate::FromPem(*present);
    const int64_t third = options_.certificate_lifetime.count() / 3;
    if (certificate.ok() &&
        certificate->CheckSignedBy(authority_.certificate(), now).ok() &&
        certificate->not_after_millis() - now > third &&
        certificate->not_after_millis() - now <= 3 * third + 1000) {
      return absl::OkStatus();
    }
  } else if (!absl::IsNotFound(present.status())) {
    return present.status();
  }
  CertificateOrder order;
  order.identity.cluster = cluster();
  order.lifetime = options_.certificate_lifetime;
  order.hosts = options_.hosts;
  order.hosts.insert(order.hosts.end(),
                     {kCoordinatorHost, "localhost", "127.0.0.1", "::1"});
  DP_ASSIGN_OR_RETURN(const KeyPair key, KeyPair::Generate());
  DP_ASSIGN_OR_RETURN(const std::string key_pem, key.ToPem());
  DP_ASSIGN_OR_RETURN(const std::string request, key.MakeSigningRequest());
  DP_ASSIGN_OR_RETURN(const std::string certificate,
                      authority_.Sign(request, order, now));
  DP_ASSIGN_OR_RETURN(const std::string authority,
                      authority_.certificate().ToPem());
  return WritePrivateFile(own_pem_path(),
                          absl::StrCat(key_pem, certificate, authority));
}

void CoordinatorSecurity::RenewLoop() {
  const Nanos pause = std::min<Nanos>(options_.certificate_lifetime / 12,
                                      std::chrono::minutes(10));
  while (options_.clock->SleepUntil(options_.clock->Now() + pause, &stopped_)) {
    const absl::Status renewed = RenewOwn();
    if (!renewed.ok()) {
      LOG_ERROR << "the coordinator's certificate was not renewed: "
                << renewed.message();
    }
  }
}

absl::StatusOr<std::string> CoordinatorSecurity::NameFor(
    const std::string& wanted, const std::string& key_hash) {
  DP_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(options_.folder));
  Json names = Json::object();
  const auto text = ReadPrivateFile(Path("workers.json"));
  if (text.ok()) {
    names = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (!names.is_object()) {
      return absl::DataLossError(
          absl::StrCat("cannot read ", Path("workers.json"),
                       ": expected an object of names and keys; restore it "
                       "from a backup"));
    }
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  int64_t last = 0;
  for (const auto& [name, key] : names.items()) {
    if (key == key_hash) return name;  // it asks again
    last = std::max(last, NumberOf(name));
  }
  const bool is_free =
      NumberOf(wanted) > 0 && names.find(wanted) == names.end();
  std::string name = is_free ? wanted : absl::StrCat("worker-", last + 1);
  if (!is_free && last >= kMaxWorkers) {
    return absl::ResourceExhaustedError("there are no names for workers left");
  }
  names[name] = key_hash;
  DP_RETURN_IF_ERROR(WritePrivateFile(
      Path("workers.json"),
      names.dump(1, ' ', true, Json::error_handler_t::replace) + "\n"));
  return name;
}

absl::StatusOr<IssuedCertificate> CoordinatorSecurity::Enroll(
    const std::string& join_token, const std::string& signing_request,
    const std::string& wanted_name) {
  // Before a use of the token is counted.
  DP_ASSIGN_OR_RETURN(const std::string key_hash,
                      RequestedKeyHash(signing_request));
  DP_RETURN_IF_ERROR(tokens_->Redeem(join_token, key_hash).status());
  DP_ASSIGN_OR_RETURN(const std::string name, NameFor(wanted_name, key_hash));
  return Issue(name, signing_request);
}

absl::StatusOr<IssuedCertificate> CoordinatorSecurity::Renew(
    const Identity& worker, const std::string& signing_request) {
  return Issue(worker.worker, signing_request);
}

absl::StatusOr<IssuedCertificate> CoordinatorSecurity::Issue(
    const std::string& worker, const std::string& signing_request) {
  CertificateOrder order;
  order.identity = {cluster(), worker};
  order.lifetime = options_.certificate_lifetime;
  const int64_t now = options_.clock->WallMillis();
  IssuedCertificate issued;
  DP_ASSIGN_OR_RETURN(issued.certificate_pem,
                      authority_.Sign(signing_request, order, now));
  DP_ASSIGN_OR_RETURN(issued.authority_pem, authority_.certificate().ToPem());
  issued.identity = order.identity;
  issued.lifetime_millis = order.lifetime.count();
  issued.expire_millis = now + issued.lifetime_millis;
  return issued;
}

}  // namespace deltapipe
