// deltapipe top JOB
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/reconnection.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/top_frame.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

/// Between two frames; and how long a signal may wait.
constexpr int kFrameMillis = 1000;
constexpr int kPollMillis = 100;
// Another screen without a cursor, and back; the cursor's home; rests erased.
constexpr char kEnter[] = "\x1b[?1049h\x1b[?25l";
constexpr char kLeave[] = "\x1b[?25h\x1b[?1049l";
constexpr char kHome[] = "\x1b[H";
constexpr char kEraseLine[] = "\x1b[K\n";
constexpr char kEraseRest[] = "\x1b[K\x1b[J";

struct TopOptions {
  std::string coordinator;
  std::string job;
  Nanos reconnect_for{0};
  bool json = false;
};

bool IsLive() {
  return isatty(STDOUT_FILENO) == 1 && isatty(STDIN_FILENO) == 1 &&
         StderrIsTerminal();
}

/// Keys come one by one and are not shown, until this is destroyed.
class KeyMode {
 public:
  KeyMode() {
    is_set_ = tcgetattr(STDIN_FILENO, &former_) == 0;
    if (!is_set_) return;
    termios keys = former_;
    keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    is_set_ = tcsetattr(STDIN_FILENO, TCSANOW, &keys) == 0;
    PrintData(kEnter);
  }
  ~KeyMode() {
    PrintData(kLeave);
    if (is_set_) tcsetattr(STDIN_FILENO, TCSANOW, &former_);
  }
  KeyMode(const KeyMode&) = delete;
  KeyMode& operator=(const KeyMode&) = delete;

 private:
  termios former_ = {};
  bool is_set_ = false;
};

TopSize TerminalSize() {
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) {
    return {80, 24};
  }
  return {size.ws_col, size.ws_row};
}

/// Waits for the next frame's time. False if the user or a signal ends it.
bool AwaitNextFrame(Nanos pause, const SignalWatch& signals) {
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(pause).count();
  for (int waited = 0; waited < millis; waited += kPollMillis) {
    if (signals.first_signal() != 0) return false;
    pollfd input = {STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, kPollMillis) <= 0) continue;
    char key = 'q';  // also where nothing more can be read
    if (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q') {
      return false;
    }
  }
  return true;
}

/// `frame` on the whole screen, and `line` below it.
void DrawFrame(const std::string& frame, const std::string& line) {
  PrintData(absl::StrCat(
      kHome, absl::StrReplaceAll(frame + line, {{"\n", kEraseLine}}),
      kEraseRest));
}

/// Draws frames until the job, the user or a signal ends it, or an error, which
/// it returns. `last` is the last frame.
absl::Status DrawFrames(const TopOptions& options, const SignalWatch& signals,
                        JobClient* client, std::string* last) {
  std::string note;
  Reconnection reconnection(
      {options.coordinator, options.reconnect_for,
       [&note](const std::string& line) { note = line + "; "; },
       Clock::Real()});
  for (;;) {
    const auto metrics = client->GetMetrics(options.job);
    Nanos pause = std::chrono::milliseconds(kFrameMillis);
    TopSize size = TerminalSize();
    size.rows -= 2;
    if (metrics.ok()) {
      reconnection.OnAnswer();
      *last = TopFrame(*metrics, size);
      if (IsFinished(metrics->state())) return absl::OkStatus();
    } else {
      DP_ASSIGN_OR_RETURN(const Nanos when,
                          reconnection.OnFailure(metrics.status()));
      pause = when - Clock::Real()->Now();
    }
    const std::string line = note + "q quits";
    DrawFrame(*last, line.substr(0, static_cast<size_t>(size.columns)));
    // That it is back is told for one frame.
    if (!reconnection.is_away()) note.clear();
    if (!AwaitNextFrame(pause, signals)) return absl::OkStatus();
  }
}

int Live(const TopOptions& options) {
  SignalWatch signals([](int, int) {});
  JobClient client(options.coordinator);
  absl::Status status;
  std::string last;
  {
    const KeyMode keys;
    status = DrawFrames(options, signals, &client, &last);
  }
  if (!status.ok()) return Fail(status);
  PrintData(last);
  return signals.first_signal() != 0 ? ExitCodeOfSignal(signals.first_signal())
                                     : kExitOk;
}

int Top(const TopOptions& options) {
  if (!options.json && IsLive()) return Live(options);
  JobClient client(options.coordinator);
  const auto metrics = client.GetMetrics(options.job);
  if (!metrics.ok()) return Fail(metrics.status());
  constexpr int kWide = 200;
  PrintData(options.json ? JsonLine(ToJson(*metrics))
                         : TopFrame(*metrics, {kWide, 0}));
  return kExitOk;
}

}  // namespace

void AddTopVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* verb = app->add_subcommand(
      "top", "Watch a job: pipeline, links, stragglers, events");
  verb->add_option("JOB", options->job, "The job's id")->required();
  AddReconnectOption(verb, &options->reconnect_for);
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb,
              "  deltapipe top text-1\n"
              "  deltapipe top text-1 | head\n"
              "Where there is no terminal, one frame is printed; q ends it "
              "where there is one,\nand it goes on when the coordinator is "
              "started again.");
  verb->callback([=] { *chosen = [=] { return Top(*options); }; });
}

}  // namespace deltapipe
