// Runs deltapipe-lab inside a test, and finds its files.
#ifndef DELTAPIPE_WORKER_LAB_TESTING_LAB_H_
#define DELTAPIPE_WORKER_LAB_TESTING_LAB_H_

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "worker/lab/lab.h"

namespace deltapipe {

struct LabOutcome {
  int exit_code = 0;
  std::string out;
  std::string err;

  std::vector<std::string> lines() const {
    return absl::StrSplit(out, '\n', absl::SkipEmpty());
  }
  /// One a line; discarded values for lines that are no JSON.
  std::vector<nlohmann::json> objects() const {
    std::vector<nlohmann::json> objects;
    for (const std::string& line : lines()) {
      objects.push_back(nlohmann::json::parse(line, nullptr, false));
    }
    return objects;
  }
  /// All of it.
  nlohmann::json json() const {
    return nlohmann::json::parse(out, nullptr, false);
  }
};

inline LabOutcome RunLabProgram(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"deltapipe-lab"};
  for (const std::string& argument : arguments) {
    argv.push_back(argument.c_str());
  }
  std::ostringstream out, err;
  LabOutcome outcome;
  outcome.exit_code =
      RunLab(static_cast<int>(argv.size()), argv.data(), out, err);
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

/// Of a file that the test may write.
inline std::string LabPath(const std::string& name) {
  const char* folder = std::getenv("TEST_TMPDIR");
  return absl::StrCat(folder != nullptr ? folder : ::testing::TempDir(), "/",
                      name);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_TESTING_LAB_H_
