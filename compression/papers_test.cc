// docs/papers.md against the list of codecs.
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "compression/codec_registry.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

TEST(PapersTest, EveryCodecHasItsEquationFileAndTest) {
  std::ifstream file("docs/papers.md");
  const std::string text = {std::istreambuf_iterator<char>(file), {}};
  const size_t table = text.find("| codec | equation | file | test |\n");
  ASSERT_NE(table, std::string::npos);

  std::set<std::string> names;
  for (const absl::string_view line :
       absl::StrSplit(absl::string_view(text).substr(table), '\n')) {
    if (!absl::StartsWith(line, "| `")) continue;
    const std::vector<absl::string_view> cells = absl::StrSplit(line, " | ");
    EXPECT_EQ(cells.size(), 4u) << line;
    for (const absl::string_view word : absl::StrSplit(cells[0], '`')) {
      names.insert(std::string(word));
    }
  }

  for (const CodecInfo& info : AllCodecs()) {
    EXPECT_EQ(names.count(std::string(info.name)), 1u) << info.name;
  }
}

}  // namespace
}  // namespace deltapipe
