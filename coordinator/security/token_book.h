// TokenBook: who may call the coordinator and who may join it, as tokens with a
// scope, an end and, for joining, a number of uses. One file in the security
// folder, 0600; of each token only the SHA-256 is kept (base/tls/secret.h says
// why one round is enough).
//
// The command line and a running coordinator may use the same folder at once:
// each change is made under a lock on it and seen by the other at its next
// call. Thread-safe; blocks for the disk.
//
//   DP_ASSIGN_OR_RETURN(auto book, TokenBook::Open(folder, Clock::Real()));
//   DP_ASSIGN_OR_RETURN(IssuedToken token, book->Create(wanted));
//   DP_ASSIGN_OR_RETURN(TokenRecord who, book->Check(token.secret));
#ifndef DELTAPIPE_COORDINATOR_SECURITY_TOKEN_BOOK_H_
#define DELTAPIPE_COORDINATOR_SECURITY_TOKEN_BOOK_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace deltapipe {

/// Each may what those before it may; kJoin may only join as a worker.
enum class TokenScope { kViewer, kOperator, kAdmin, kJoin };

/// "viewer", "operator", "admin", "join".
const char* ScopeName(TokenScope scope);
/// INVALID_ARGUMENT for any other word.
absl::StatusOr<TokenScope> ParseScope(const std::string& name);

struct TokenRecord {
  std::string id;    // 8 hexadecimal digits, no secret
  std::string name;  // whom it was made for
  TokenScope scope = TokenScope::kViewer;
  std::string hash;
  int64_t create_millis = 0;
  int64_t expire_millis = 0;
  bool is_revoked = false;
  int uses_left = 0;  // of kJoin
  /// The public keys that joined with it: a worker that asks again because it
  /// heard no answer is the same use.
  std::vector<std::string> used_by;
};

struct NewToken {
  std::string name;
  TokenScope scope = TokenScope::kViewer;
  std::chrono::milliseconds lifetime = std::chrono::hours(24 * 30);
  int uses = 1;  // of kJoin
};

struct IssuedToken {
  TokenRecord record;
  /// Shown once, kept nowhere: "dpt_3f9c2a1b_<64 digits>", "dpj_..." to join.
  std::string secret;
};

class TokenBook {
 public:
  /// `folder` exists; the file is made by the first Create.
  static absl::StatusOr<std::unique_ptr<TokenBook>> Open(
      const std::string& folder, Clock* clock);

  /// INVALID_ARGUMENT: a name that is empty, over 100 bytes or not printable; a
  /// lifetime or number of uses below 1.
  absl::StatusOr<IssuedToken> Create(const NewToken& wanted);

  /// Whose the token is, unless it is one to join with. UNAUTHENTICATED:
  /// unknown, expired or revoked.
  absl::StatusOr<TokenRecord> Check(const std::string& secret);

  /// Counts one use of a token to join with, for the worker with this public
  /// key. UNAUTHENTICATED: as above. PERMISSION_DENIED: not one to join with,
  /// or used up.
  absl::StatusOr<TokenRecord> Redeem(const std::string& secret,
                                     const std::string& key_hash);

  /// NOT_FOUND: no token has this id.
  absl::Status Revoke(const std::string& id);
  absl::StatusOr<std::vector<TokenRecord>> List();

 private:
  TokenBook(std::string folder, Clock* clock)
      : folder_(std::move(folder)), clock_(clock) {}
  absl::StatusOr<std::vector<TokenRecord>> Load() const;
  absl::Status Store(const std::vector<TokenRecord>& records) const;
  absl::StatusOr<TokenRecord*> Find(const std::string& secret,
                                    std::vector<TokenRecord>* records) const;
  std::string path() const { return folder_ + "/tokens.json"; }

  const std::string folder_;
  Clock* const clock_;

  /// What Check knows of the file, as long as that is not replaced.
  Mutex mutex_;
  std::vector<TokenRecord> cached_ DP_GUARDED_BY(mutex_);
  std::string cached_version_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SECURITY_TOKEN_BOOK_H_
