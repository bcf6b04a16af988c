// Whether bytes from outside (the command line, a spec) are UTF-8, which
// everything that goes to a coordinator must be.
//
// Pure; called by any thread.
#ifndef DELTAPIPE_BASE_UTF8_H_
#define DELTAPIPE_BASE_UTF8_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

/// Where the first byte is that is not UTF-8 as RFC 3629 has it (no overlong
/// forms, no surrogates, nothing above U+10FFFF); the size if there is none.
size_t FirstBadUtf8Byte(absl::string_view bytes);
bool IsUtf8(absl::string_view bytes);

/// INVALID_ARGUMENT if `text` is not UTF-8: "WHAT is not UTF-8 at
/// 'text\xff'...", with what is around the first bad byte.
absl::Status CheckUtf8(absl::string_view what, absl::string_view text);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_UTF8_H_
