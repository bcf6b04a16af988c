#include "coordinator/cli/client_security.h"

#include <grpcpp/security/credentials.h>

#include <chrono>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/deadline.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/tls/pinned_authority.h"
#include "base/tls/private_file.h"

namespace deltapipe {
namespace {

constexpr std::chrono::seconds kFetchLimit(10);
constexpr int64_t kMaxCertificateBytes = 1 << 20;

}  // namespace

ClientSecurity* CommandLineSecurity() {
  static ClientSecurity* const security = new ClientSecurity();
  return security;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeClientCredentials(
    const std::string& address, const ClientSecurity& security) {
  if (!security.has_tls()) {
    if (!security.token_file.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the token in ", security.token_file,
                       " is shown over TLS only: give --ca-file or --ca-hash, "
                       "too"));
    }
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions ssl;
  if (!security.ca_file.empty()) {
    DP_ASSIGN_OR_RETURN(ssl.pem_root_certs,
                        ReadFile(security.ca_file, kMaxCertificateBytes));
  } else {
    DP_ASSIGN_OR_RETURN(
        ssl.pem_root_certs,
        FetchPinnedAuthority(address, security.ca_hash, Clock::Real(),
                             Deadline::After(kFetchLimit)));
  }
  std::shared_ptr<grpc::ChannelCredentials> channel = grpc::SslCredentials(ssl);
  if (security.token_file.empty()) return channel;
  DP_ASSIGN_OR_RETURN(const std::string text,
                      ReadPrivateFile(security.token_file));
  const std::string token(absl::StripAsciiWhitespace(text));
  if (token.empty() || token.size() > 200) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no token in ", security.token_file,
        ": expected one line as `deltapipe token create` printed it"));
  }
  return grpc::CompositeChannelCredentials(channel,
                                           grpc::AccessTokenCredentials(token));
}

}  // namespace deltapipe
