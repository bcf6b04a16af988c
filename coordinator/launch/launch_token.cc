#include "coordinator/launch/launch_token.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace deltapipe {

absl::StatusOr<std::string> MakeLaunchToken() {
  char bytes[16];
  if (getrandom(bytes, sizeof(bytes), 0) !=
      static_cast<ssize_t>(sizeof(bytes))) {
    return absl::UnavailableError(
        absl::StrCat("cannot draw a launch token: ", strerror(errno)));
  }
  return absl::BytesToHexString(absl::string_view(bytes, sizeof(bytes)));
}

}  // namespace deltapipe
