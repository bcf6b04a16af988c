#include "coordinator/service/peer_host.h"

#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace deltapipe {

std::string PeerHost(const std::string& peer) {
  absl::string_view rest = peer;
  if (!absl::ConsumePrefix(&rest, "ipv4:") &&
      !absl::ConsumePrefix(&rest, "ipv6:")) {
    return "localhost";  // a Unix socket, or within the process
  }
  const size_t colon = rest.rfind(':');
  if (colon != absl::string_view::npos) rest = rest.substr(0, colon);
  return absl::StrReplaceAll(
      rest, {{"%5B", ""}, {"%5D", ""}, {"[", ""}, {"]", ""}, {"%25", "%"}});
}

}  // namespace deltapipe
