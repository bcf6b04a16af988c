// Files with secrets: nobody but their owner reads or writes them (0600).
#ifndef DELTAPIPE_BASE_TLS_PRIVATE_FILE_H_
#define DELTAPIPE_BASE_TLS_PRIVATE_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

/// Replaces `path` by `text` in one step, synced, with mode 0600 from its first
/// byte on. The errors of base/file.h.
absl::Status WritePrivateFile(const std::string& path, absl::string_view text);

/// The content of `path`, at most 1 MiB. PERMISSION_DENIED if others than its
/// owner may read or write it; otherwise the errors of ReadFile.
absl::StatusOr<std::string> ReadPrivateFile(const std::string& path);

/// Makes the folder `path` with mode 0700, and those above it; OK if it is
/// there.
absl::Status MakePrivateFolder(const std::string& path);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TLS_PRIVATE_FILE_H_
