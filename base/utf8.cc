#include "base/utf8.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

/// Bytes that an error shows around the first bad one.
constexpr size_t kShownBefore = 40;
constexpr size_t kShownAfter = 20;

/// The bytes of the character that begins at `at`; 0 if none does.
size_t CharacterSize(absl::string_view bytes, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < bytes.size() ? static_cast<uint8_t>(bytes[at + i]) : 0;
  };
  const int first = byte(0);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const int second = byte(1);
  const bool is_overlong =
      (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool is_surrogate = first == 0xED && second >= 0xA0;
  const bool is_too_large = first == 0xF4 && second >= 0x90;
  return is_overlong || is_surrogate || is_too_large ? 0 : size;
}

}  // namespace

size_t FirstBadUtf8Byte(absl::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t size = CharacterSize(bytes, at);
    if (size == 0) return at;
    at += size;
  }
  return at;
}

bool IsUtf8(absl::string_view bytes) {
  return FirstBadUtf8Byte(bytes) == bytes.size();
}

absl::Status CheckUtf8(absl::string_view what, absl::string_view text) {
  const size_t bad = FirstBadUtf8Byte(text);
  if (bad == text.size()) return absl::OkStatus();
  const size_t begin = bad - std::min(bad, kShownBefore);
  const absl::string_view shown = text.substr(begin, bad - begin + kShownAfter);
  return absl::InvalidArgumentError(
      absl::StrCat(what, " is not UTF-8 at '", absl::CHexEscape(shown),
                   "': write it in UTF-8, or rename what it names"));
}

}  // namespace deltapipe
