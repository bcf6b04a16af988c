// A folder with the three programs, a text and a job, for tests that drive
// deltapipe as a user does.
//
// Each test has its own folder below TEST_TMPDIR and its own mark on processes;
// the destructor kills what is left. The job is small: a few blocks 32 wide on
// 30 kB of varied text.
//
//   Workbench bench;
//   Outcome outcome = bench.Run({"run", "job.yaml", "--set", "train.steps=3"});
//   EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
#ifndef DELTAPIPE_TESTS_SUPPORT_WORKBENCH_H_
#define DELTAPIPE_TESTS_SUPPORT_WORKBENCH_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/support/process.h"

namespace deltapipe {

/// What a program did until it ended.
struct Outcome {
  int exit_code = -1;  // -1: it did not end in time
  std::string output;
  std::string errors;
  std::string text;  // both, after a line with the command and exit code

  /// The lines of stdout that are JSON objects, in order.
  std::vector<nlohmann::json> Objects() const;
  /// Those whose "event" is `event`.
  std::vector<nlohmann::json> Events(const std::string& event) const;
  /// The "loss" of every step, in order.
  std::vector<double> Losses() const;
};

/// How many JSON lines of `text` have this "event".
int CountEvents(const std::string& text, const std::string& event);

class Workbench {
 public:
  Workbench();
  ~Workbench();
  Workbench(const Workbench&) = delete;
  Workbench& operator=(const Workbench&) = delete;

  const std::string& folder() const { return folder_; }
  const std::string& mark() const { return mark_; }
  std::string program(const std::string& name) const {
    return folder_ + "/bin/" + name;
  }

  /// Writes `text` to a file in the folder.
  void Write(const std::string& name, const std::string& text) const;
  std::string Read(const std::string& name) const;
  bool Has(const std::string& name) const;

  /// Starts `deltapipe` with these arguments, in the folder.
  std::unique_ptr<Process> Start(const std::vector<std::string>& arguments);
  /// The same for any program; `words` begin with a path.
  std::unique_ptr<Process> StartProgram(const std::vector<std::string>& words);
  /// The same for any program, on a terminal.
  std::unique_ptr<Process> StartOnTerminal(
      const std::vector<std::string>& words);
  /// Starts `deltapipe`, waits for its end, at most 60 s.
  Outcome Run(const std::vector<std::string>& arguments);
  /// Waits for its end and collects what it wrote.
  Outcome Finish(Process* process, std::chrono::milliseconds wait,
                 const std::string& command = "");

  std::vector<RunningProcess> Workers() const {
    return MarkedProcesses(mark_, "deltapipe-worker");
  }

 private:
  std::string folder_;
  std::string mark_;
};

/// Waits until a coordinator says where it listens, at most 20 s; its address
/// on loopback, "" if it has not said so.
std::string AwaitListening(Process* coordinator);

/// The folder's job.yaml: a GPT of 4 blocks, 2 stages x 2 replicas, no
/// compression, 8 steps.
extern const char kSmallJob[];

/// `size` bytes of words in sentences, always the same.
std::string VariedText(size_t size);

}  // namespace deltapipe

#endif  // DELTAPIPE_TESTS_SUPPORT_WORKBENCH_H_
