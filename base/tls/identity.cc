#include "base/tls/identity.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxName = 63;

}  // namespace

std::string Identity::ToString() const {
  return is_worker() ? absl::StrCat("deltapipe://", cluster, "/worker/", worker)
                     : absl::StrCat("deltapipe://", cluster, "/coordinator");
}

bool IsIdentityName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxName && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

absl::StatusOr<Identity> ParseIdentity(absl::string_view uri) {
  const absl::Status error = absl::InvalidArgumentError(
      absl::StrCat("bad identity: expected deltapipe://CLUSTER/coordinator or "
                   "deltapipe://CLUSTER/worker/NAME, got '",
                   uri.substr(0, 200), "'"));
  absl::string_view rest = uri;
  if (!absl::ConsumePrefix(&rest, "deltapipe://")) return error;
  const size_t slash = rest.find('/');
  if (slash == absl::string_view::npos) return error;
  Identity identity;
  identity.cluster = std::string(rest.substr(0, slash));
  if (!IsIdentityName(identity.cluster)) return error;
  rest = rest.substr(slash + 1);
  if (rest == "coordinator") return identity;
  if (!absl::ConsumePrefix(&rest, "worker/") || !IsIdentityName(rest)) {
    return error;
  }
  identity.worker = std::string(rest);
  return identity;
}

}  // namespace deltapipe
