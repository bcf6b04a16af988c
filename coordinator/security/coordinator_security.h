// CoordinatorSecurity: what a coordinator needs to let in the right workers and
// users: its certificate authority, its own certificate, tokens and the audit
// log, all in one folder beside the store.
//
//   authority.key      the authority's private key, 0600: whoever has it is
//   authority.pem      everybody; its certificate, for all to see
//   coordinator.pem    the coordinator's key and certificates, 0600
//   tokens.json        hashes of tokens, 0600
//   workers.json       which key each worker's name was given to, 0600
//   audit.ndjson       who did what, 0600
//
// Owned by whoever starts the coordinator; thread-safe.
//
//   DP_ASSIGN_OR_RETURN(auto security, CoordinatorSecurity::Open(options));
//   DP_ASSIGN_OR_RETURN(auto token, security->tokens()->Create(wanted));
#ifndef DELTAPIPE_COORDINATOR_SECURITY_COORDINATOR_SECURITY_H_
#define DELTAPIPE_COORDINATOR_SECURITY_COORDINATOR_SECURITY_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/thread.h"
#include "base/tls/certificate_authority.h"
#include "coordinator/security/audit_log.h"
#include "coordinator/security/authorizer.h"
#include "coordinator/security/token_book.h"

namespace deltapipe {

struct SecurityOptions {
  std::string folder;
  /// Of the coordinator's and the workers' certificates, which are made anew
  /// after two thirds of it.
  std::chrono::milliseconds certificate_lifetime = std::chrono::hours(24);
  /// Names and addresses for the coordinator's certificate, besides localhost.
  std::vector<std::string> hosts;
  Clock* clock = Clock::Real();
};

/// A worker's certificate, as it was asked for.
struct IssuedCertificate {
  std::string certificate_pem;
  std::string authority_pem;
  Identity identity;
  int64_t expire_millis = 0;
  int64_t lifetime_millis = 0;
};

/// The folder that belongs to a store: "runs/coordinator.security" of
/// "runs/coordinator.db".
std::string SecurityFolderOf(const std::string& store_path);

class CoordinatorSecurity {
 public:
  /// Makes what is missing: on the first start a new authority and a token of
  /// an admin in `admin.token`. PERMISSION_DENIED: a secret that others can
  /// read. INVALID_ARGUMENT, DATA_LOSS: files that cannot be read.
  static absl::StatusOr<std::unique_ptr<CoordinatorSecurity>> Open(
      SecurityOptions options);
  /// The same, where there is one; NOT_FOUND otherwise.
  static absl::StatusOr<std::unique_ptr<CoordinatorSecurity>> OpenExisting(
      SecurityOptions options);
  ~CoordinatorSecurity();

  /// A certificate for a new worker with a token to join. `wanted_name` may be
  /// empty; another is given where it is no worker's name or belongs to another
  /// key. The errors of TokenBook::Redeem and of CertificateAuthority::Sign.
  absl::StatusOr<IssuedCertificate> Enroll(const std::string& join_token,
                                           const std::string& signing_request,
                                           const std::string& wanted_name);
  /// A fresh certificate for a worker that has shown its own.
  absl::StatusOr<IssuedCertificate> Renew(const Identity& worker,
                                          const std::string& signing_request);

  /// Makes the coordinator's certificate anew if two thirds of its time have
  /// passed; called by an own thread, too.
  absl::Status RenewOwn();

  /// "sha256:...", what `--ca-hash` says.
  std::string authority_hash() const {
    return authority_.certificate().public_key_hash();
  }
  std::string authority_pem_path() const { return Path("authority.pem"); }
  /// Key and certificates in one file, which is replaced in one step.
  std::string own_pem_path() const { return Path("coordinator.pem"); }
  std::string admin_token_path() const { return Path("admin.token"); }
  const std::string& cluster() const { return authority_.cluster(); }
  std::chrono::milliseconds certificate_lifetime() const {
    return options_.certificate_lifetime;
  }

  TokenBook* tokens() { return tokens_.get(); }
  AuditLog* audit() { return audit_.get(); }
  const Authorizer& authorizer() const { return *authorizer_; }

 private:
  CoordinatorSecurity(SecurityOptions options, CertificateAuthority authority)
      : options_(std::move(options)), authority_(std::move(authority)) {}
  std::string Path(const std::string& name) const {
    return options_.folder + "/" + name;
  }
  absl::Status OpenParts(bool is_new);
  absl::StatusOr<IssuedCertificate> Issue(const std::string& worker,
                                          const std::string& signing_request);
  /// The name that the key gets, remembered.
  absl::StatusOr<std::string> NameFor(const std::string& wanted,
                                      const std::string& key_hash);
  void RenewLoop();

  const SecurityOptions options_;
  const CertificateAuthority authority_;
  std::unique_ptr<TokenBook> tokens_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<Authorizer> authorizer_;
  CancelToken stopped_;
  Thread renewer_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SECURITY_COORDINATOR_SECURITY_H_
