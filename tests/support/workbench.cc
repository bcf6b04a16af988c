#include "tests/support/workbench.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <regex>
#include <sstream>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrograms[] = {"coordinator/cli/deltapipe",
                                     "worker/deltapipe-worker",
                                     "worker/lab/deltapipe-lab"};

std::string Variable(const char* name, const std::string& otherwise) {
  const char* value = getenv(name);
  return value == nullptr ? otherwise : value;
}

/// The programs, once for all tests of a binary: side by side, as in bin/.
std::string ProgramFolder() {
  static const std::string* folder = [] {
    const fs::path to = fs::path(Variable("TEST_TMPDIR", "/tmp")) /
                        ("programs-" + std::to_string(getpid()));
    const fs::path from =
        fs::path(Variable("TEST_SRCDIR", "..")) /
        Variable("TEST_WORKSPACE", fs::current_path().filename());
    fs::create_directories(to);
    for (const char* program : kPrograms) {
      const fs::path source = from / program;
      if (!fs::exists(source)) continue;
      fs::copy_file(fs::canonical(source), to / fs::path(program).filename(),
                    fs::copy_options::overwrite_existing);
    }
    return new std::string(to);
  }();
  return *folder;
}

std::vector<nlohmann::json> ParseObjects(const std::string& text) {
  std::vector<nlohmann::json> objects;
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    if (line.empty() || line.front() != '{') continue;
    nlohmann::json object =
        nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (object.is_object()) objects.push_back(std::move(object));
  }
  return objects;
}

}  // namespace

const char kSmallJob[] = R"(name: small
seed: 3
model: {kind: gpt, layers: 4, width: 32, heads: 2, context: 32}
data: {path: text.txt, limit: all, validation: 0.1}
train:
  steps: 8
  batch: 16
  microbatch: 2
  clip_norm: 1.0
  optimizer: {kind: adamw, learning_rate: 3e-3}
parallel: {stages: 2, replicas: 2, partition: even, device: cpu, threads: 1}
compression: {activations: none, activation_gradients: none, gradients: none}
)";

std::string VariedText(size_t size) {
  constexpr const char* kWords[] = {
      "river", "stone", "winter", "lamp",   "quiet", "garden", "letter",
      "train", "salt",  "window", "copper", "paper", "harbor", "violet",
      "bread", "cloud", "thread", "signal", "north", "candle", "mirror",
      "field", "smoke", "anchor", "silver", "apple", "engine", "valley"};
  std::mt19937 random(20240229);
  std::string text;
  int words_left = 0;
  while (text.size() < size) {
    if (words_left == 0) {
      words_left = 4 + static_cast<int>(random() % 9);
      if (!text.empty()) text += ".\n";
      text += static_cast<char>('A' + random() % 26);
    }
    text += kWords[random() % std::size(kWords)];
    text += random() % 7 == 0 ? ", " : " ";
    --words_left;
  }
  text.resize(size);
  return text;
}

std::vector<nlohmann::json> Outcome::Objects() const {
  return ParseObjects(output);
}

std::vector<nlohmann::json> Outcome::Events(const std::string& event) const {
  std::vector<nlohmann::json> found;
  for (nlohmann::json& object : ParseObjects(output)) {
    if (object.value("event", "") == event) found.push_back(std::move(object));
  }
  return found;
}

std::vector<double> Outcome::Losses() const {
  std::vector<double> losses;
  for (const nlohmann::json& step : Events("step")) {
    losses.push_back(step.value("loss", 0.0));
  }
  return losses;
}

int CountEvents(const std::string& text, const std::string& event) {
  int count = 0;
  for (const nlohmann::json& object : ParseObjects(text)) {
    if (object.value("event", "") == event) ++count;
  }
  return count;
}

Workbench::Workbench() {
  static std::atomic<int> next{0};
  mark_ = std::to_string(getpid()) + "." + std::to_string(next++);
  folder_ = (fs::path(Variable("TEST_TMPDIR", "/tmp")) / ("bench-" + mark_));
  fs::create_directories(folder_);
  fs::create_symlink(ProgramFolder(), fs::path(folder_) / "bin");
  Write("job.yaml", kSmallJob);
  Write("text.txt", VariedText(30000));
}

Workbench::~Workbench() {
  for (const RunningProcess& process : MarkedProcesses(mark_)) {
    kill(process.pid, SIGKILL);
  }
  WaitForNoneMarked(mark_, std::chrono::seconds(10));
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

void Workbench::Write(const std::string& name, const std::string& text) const {
  std::ofstream file(folder_ + "/" + name, std::ios::binary);
  file << text;
  ASSERT_TRUE(file.flush()) << "cannot write " << folder_ << "/" << name;
}

std::string Workbench::Read(const std::string& name) const {
  std::ifstream file(folder_ + "/" + name, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

bool Workbench::Has(const std::string& name) const {
  return fs::exists(folder_ + "/" + name);
}

std::unique_ptr<Process> Workbench::Start(
    const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {program("deltapipe")};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return StartProgram(words);
}

std::unique_ptr<Process> Workbench::StartProgram(
    const std::vector<std::string>& words) {
  ProcessOptions options;
  options.folder = folder_;
  options.mark = mark_;
  return Process::Start(words, options);
}

std::unique_ptr<Process> Workbench::StartOnTerminal(
    const std::vector<std::string>& words) {
  ProcessOptions options;
  options.folder = folder_;
  options.mark = mark_;
  options.has_terminal = true;
  return Process::Start(words, options);
}

Outcome Workbench::Run(const std::vector<std::string>& arguments) {
  std::string command = "deltapipe";
  for (const std::string& argument : arguments) command += " " + argument;
  std::unique_ptr<Process> process = Start(arguments);
  return Finish(process.get(), std::chrono::seconds(60), command);
}

Outcome Workbench::Finish(Process* process, std::chrono::milliseconds wait,
                          const std::string& command) {
  Outcome outcome;
  if (process == nullptr) return outcome;
  outcome.exit_code = process->WaitForExit(wait).value_or(-1);
  if (outcome.exit_code >= 0) {
    // The pipes close with the last process that holds them.
    process->WaitForOutput([](const std::string&) { return false; },
                           std::chrono::seconds(2));
  }
  outcome.output = process->output();
  outcome.errors = process->errors();
  outcome.text = "$ " + command + "\n(exit code " +
                 std::to_string(outcome.exit_code) + ")\n" + outcome.output +
                 outcome.errors;
  return outcome;
}

std::string AwaitListening(Process* coordinator) {
  const std::regex line("listening on ([0-9.]+:[0-9]+)");
  std::string address;
  coordinator->WaitForOutput(
      [&](const std::string& text) {
        std::smatch match;
        if (!std::regex_search(text, match, line)) return false;
        address = match[1].str();
        return true;
      },
      std::chrono::seconds(20));
  return address;
}

}  // namespace deltapipe
