#include "base/glob.h"

#include <cstdint>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

/// The definition: '*' takes some number of characters.
bool MatchesByDefinition(const std::string& glob, const std::string& name) {
  if (glob.empty()) return name.empty();
  if (glob[0] != '*') {
    return !name.empty() && name[0] == glob[0] &&
           MatchesByDefinition(glob.substr(1), name.substr(1));
  }
  for (size_t taken = 0; taken <= name.size(); ++taken) {
    if (MatchesByDefinition(glob.substr(1), name.substr(taken))) return true;
  }
  return false;
}

std::string RandomText(std::mt19937_64* random, const std::string& letters,
                       size_t max_size) {
  std::string text((*random)() % (max_size + 1), ' ');
  for (char& c : text) c = letters[(*random)() % letters.size()];
  return text;
}

TEST(MatchesGlobTest, AStarStandsForAnyCharacters) {
  EXPECT_TRUE(MatchesGlob("*.bias", "blocks.0.attention.bias"));
  EXPECT_TRUE(MatchesGlob("blocks.0.*", "blocks.0.mlp.weight"));
  EXPECT_TRUE(MatchesGlob("*", ""));
  EXPECT_TRUE(MatchesGlob("head", "head"));
  EXPECT_FALSE(MatchesGlob("blocks.1.*", "blocks.10.mlp.weight"));
  EXPECT_FALSE(MatchesGlob("bias", "blocks.0.bias"));
  EXPECT_FALSE(MatchesGlob("", "bias"));
  EXPECT_FALSE(MatchesGlob("b?as", "bias"));
}

TEST(MatchesGlobTest, EqualsItsDefinition) {
  constexpr uint64_t kSeed = 2404;
  RecordProperty("seed", static_cast<int>(kSeed));
  std::mt19937_64 random(kSeed);
  int num_matches = 0;

  for (int i = 0; i < 20000; ++i) {
    const std::string glob = RandomText(&random, "ab**", 7);
    const std::string name = RandomText(&random, "ab", 8);
    const bool expected = MatchesByDefinition(glob, name);
    num_matches += expected ? 1 : 0;
    ASSERT_EQ(MatchesGlob(glob, name), expected) << glob << " of " << name;
  }

  EXPECT_GT(num_matches, 1000);
}

}  // namespace
}  // namespace deltapipe
