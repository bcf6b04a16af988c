// A program under test: started with its output captured, signalled, awaited.
//
// The child leads a process group of its own and dies with the test. Everything
// it starts inherits a mark in the environment, by which MarkedProcesses finds
// descendants however they were orphaned. Used from one thread.
//
//   auto run = Process::Start({bin + "/deltapipe", "run", "job.yaml"},
//   options); ASSERT_TRUE(run->WaitForOutput(
//       [](const std::string& text) { return text.find("step") != npos; },
//       std::chrono::seconds(30)));
//   run->SignalGroup(SIGINT);
//   EXPECT_EQ(run->WaitForExit(std::chrono::seconds(2)), 130);
#ifndef DELTAPIPE_TESTS_SUPPORT_PROCESS_H_
#define DELTAPIPE_TESTS_SUPPORT_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"

namespace deltapipe {

struct ProcessOptions {
  std::string folder;  // working folder
  std::string mark;    // what MarkedProcesses looks for
  /// All three streams are a terminal of 100 columns, on which nobody types and
  /// which output() shows: with "\r\n" at the end of lines.
  bool has_terminal = false;
};

class Process {
 public:
  /// Starts `words`, the first of which is a path. Null if it cannot be
  /// started; the reason is printed.
  static std::unique_ptr<Process> Start(const std::vector<std::string>& words,
                                        const ProcessOptions& options);
  /// Kills the group if it still runs.
  ~Process();

  pid_t pid() const { return pid_; }
  void Signal(int signal);
  /// As a terminal does on Ctrl-C: to the program and its children.
  void SignalGroup(int signal);

  /// The exit code, 128 + signal if one ended it, nothing if it still runs.
  std::optional<int> WaitForExit(std::chrono::milliseconds wait);
  /// Waits until `found` holds for stdout and stderr joined; false at the
  /// time's or the output's end.
  bool WaitForOutput(const std::function<bool(const std::string&)>& found,
                     std::chrono::milliseconds wait);

  std::string output() const;  // stdout so far
  std::string errors() const;  // stderr so far
  std::string all() const { return output() + errors(); }

 private:
  Process(pid_t pid, int output_pipe, int errors_pipe);
  void Read(int output_pipe, int errors_pipe);

  const pid_t pid_;
  int stop_event_;
  std::optional<int> exit_code_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::string output_ DP_GUARDED_BY(mutex_);
  std::string errors_ DP_GUARDED_BY(mutex_);
  bool has_ended_ DP_GUARDED_BY(mutex_) = false;
  Thread reader_;
};

struct RunningProcess {
  pid_t pid = 0;
  std::string command;  // its words, joined by spaces
};

/// Running processes that carry `mark`, without zombies.
std::vector<RunningProcess> MarkedProcesses(const std::string& mark);
/// Those whose command holds `part`.
std::vector<RunningProcess> MarkedProcesses(const std::string& mark,
                                            const std::string& part);
/// Waits until no process carries `mark`; the commands of those that still do.
std::vector<RunningProcess> WaitForNoneMarked(const std::string& mark,
                                              std::chrono::milliseconds wait);

}  // namespace deltapipe

#endif  // DELTAPIPE_TESTS_SUPPORT_PROCESS_H_
