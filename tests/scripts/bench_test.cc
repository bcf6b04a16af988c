// What scripts/bench runs, against the lists of the library.
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"
#include "compression/delta/boundary_spec.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

// The codec texts of the table LINK_CODECS: of activations and of gradients.
std::vector<std::string> LinkCodecs() {
  std::ifstream file("scripts/bench");
  const std::string text = {std::istreambuf_iterator<char>(file), {}};
  const size_t begin = text.find("\nLINK_CODECS = {\n");
  if (begin == std::string::npos) return {};
  std::vector<std::string> codecs;
  for (const absl::string_view line : absl::StrSplit(
           text.substr(begin, text.find("\n}\n", begin) - begin), '\n')) {
    if (!absl::StartsWith(line, "    \"")) continue;
    const std::vector<std::string> quoted = absl::StrSplit(line, '"');
    for (size_t i = 1; i < quoted.size(); i += 2) codecs.push_back(quoted[i]);
  }
  return codecs;
}

TEST(BenchTest, ItsCodecsOnLinksAreEveryRowOfCodecsDef) {
  std::set<std::string> names;

  for (const std::string& codec : LinkCodecs()) {
    const auto spec = ParseBoundarySpec(codec, 0);
    ASSERT_TRUE(spec.ok()) << spec.status();
    names.insert(ParseCodecSpec(codec)->name);
  }

  for (const CodecInfo& info : AllCodecs()) {
    if (info.is_wrapper()) continue;
    EXPECT_EQ(names.count(std::string(info.name)), 1u)
        << info.name << ": add it to LINK_CODECS in scripts/bench";
  }
}

}  // namespace
}  // namespace deltapipe
