// Authorizer: what each RPC needs, and whether a caller has it. Knows methods
// by their gRPC paths; what is not in its table is refused.
//
// Thread-safe. The certificate that it is given comes from a TLS session, which
// has proven that the peer has its key; all else about it is checked here.
#ifndef DELTAPIPE_COORDINATOR_SECURITY_AUTHORIZER_H_
#define DELTAPIPE_COORDINATOR_SECURITY_AUTHORIZER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/tls/certificate.h"
#include "base/tls/identity.h"
#include "coordinator/security/token_book.h"

namespace deltapipe {

enum class Need {
  kNothing,  // health, the version, and Enroll, whose request holds a token to
             // join with
  kWorker,   // a worker's certificate
  kViewer,
  kOperator,
  kAdmin,
};

struct MethodRule {
  const char* path;  // "/deltapipe.v1.JobService/GetJob"
  Need need;
  /// Its calls are in the audit log with their results.
  bool is_audited;
};

/// The rule of a method; null if there is none.
const MethodRule* FindRule(absl::string_view path);

/// What a caller shows.
struct Credentials {
  std::string token;            // empty: none
  std::string certificate_pem;  // empty: none
};

struct Caller {
  /// For logs: "alice (operator, 3f9c2a1b)", "worker-3", "nobody".
  std::string name = "nobody";
  /// Of a worker; empty otherwise.
  std::string worker;
};

class Authorizer {
 public:
  /// Both outlive it.
  Authorizer(const Certificate* authority, const std::string& cluster,
             TokenBook* tokens, Clock* clock)
      : authority_(authority),
        cluster_(cluster),
        tokens_(tokens),
        clock_(clock) {}

  /// Who calls. UNAUTHENTICATED: shows nothing where something is needed, or
  /// what has expired or is unknown. PERMISSION_DENIED: may not; or the
  /// certificate is another authority's or no worker's. UNIMPLEMENTED: no such
  /// method.
  absl::StatusOr<Caller> Authorize(const std::string& path,
                                   const Credentials& credentials) const;
  /// The worker that the certificate is of, with the errors of Authorize.
  absl::StatusOr<Identity> WorkerOf(const std::string& certificate_pem) const;

 private:
  const Certificate* const authority_;
  const std::string cluster_;
  TokenBook* const tokens_;
  Clock* const clock_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SECURITY_AUTHORIZER_H_
