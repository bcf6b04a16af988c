// Every spec in examples/ parses without a violation.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "coordinator/spec/job_spec.h"

namespace deltapipe {
namespace {

std::vector<std::string> ExamplePaths() {
  std::vector<std::string> paths;
  DIR* folder = opendir("examples");
  if (folder == nullptr) return paths;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    const bool is_yaml =
        name.size() > 5 && name.compare(name.size() - 5, 5, ".yaml") == 0;
    if (is_yaml) paths.push_back("examples/" + name);
  }
  closedir(folder);
  std::sort(paths.begin(), paths.end());
  return paths;
}

TEST(ExamplesTest, EveryExampleParses) {
  const std::vector<std::string> paths = ExamplePaths();

  ASSERT_GE(paths.size(), 3);
  for (const std::string& path : paths) {
    EXPECT_TRUE(LoadJobSpec(path, {}).ok()) << LoadJobSpec(path, {}).status();
  }
}

TEST(ExamplesTest, TheJobForOneGpuHasFourStagesAnd100MillionParameters) {
  const auto spec = LoadJobSpec("examples/gpt-100m.yaml", {});

  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->parallel().stages(), 4);
  EXPECT_EQ(spec->parallel().replicas(), 1);
  EXPECT_EQ(spec->parallel().device(), "cuda");
  EXPECT_EQ(spec->network().emulate().bandwidth(), "500Mbit/s");
  // A block's matrices: queries, keys, values and projection, and the two of
  // the perceptron, four times as wide.
  const int64_t width = spec->model().width();
  EXPECT_GE(spec->model().layers() * 12 * width * width, 100'000'000);
}

TEST(ExamplesTest, MainJobIsTheOneThatTheDesignNames) {
  const auto spec = LoadJobSpec("examples/text.yaml", {});

  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->parallel().stages(), 2);
  EXPECT_EQ(spec->parallel().replicas(), 2);
  EXPECT_EQ(spec->train().optimizer().kind(), "onebit_lamb");
  EXPECT_EQ(spec->network().emulate().bandwidth(), "100Mbit/s");
}

}  // namespace
}  // namespace deltapipe
