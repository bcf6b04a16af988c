#include "base/stock_safetensors.h"

#include <stdlib.h>

#include <cstdio>
#include <memory>

namespace deltapipe {
namespace {

constexpr char kProgram[] =
    "import sys\n"
    "from safetensors import deserialize\n"
    "for name, t in deserialize(open(sys.argv[1], 'rb').read()):\n"
    "    print(name, t['dtype'], list(t['shape']), bytes(t['data']).hex())\n";

std::string Folder() {
  const char* tools = getenv("DELTAPIPE_TEST_TOOLS");
  return tools == nullptr ? "" : std::string(tools) + "/safetensors";
}

/// What a shell command prints, and then "failed" if its exit status is not 0.
std::string Output(const std::string& command) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(
      popen((command + " 2>&1 || echo failed").c_str(), "r"), &pclose);
  std::string text;
  char buffer[4096];
  while (const size_t count = fread(buffer, 1, sizeof(buffer), pipe.get())) {
    text.append(buffer, count);
  }
  return text;
}

std::string Python(const std::string& arguments) {
  return Output("PYTHONPATH='" + Folder() + "' python3 " + arguments);
}

}  // namespace

std::string WhyNoStockSafetensors() {
  const std::string found = Python("-c 'import safetensors; print(\"yes\")'");
  if (found == "yes\n") return "";
  return "python3 has no safetensors (scripts/test_tools fetches it): " + found;
}

std::string StockSafetensorsText(const std::string& path) {
  return Python("-c \"" + std::string(kProgram) + "\" '" + path + "'");
}

}  // namespace deltapipe
