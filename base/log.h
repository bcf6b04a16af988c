// Log lines on stderr: `LOG_INFO << "step " << n;`
//
// Thread-safe. spdlog does the writing, in log.cc only: its fmt must not meet
// LibTorch's. An error is logged once, where it is handled.
#ifndef DELTAPIPE_BASE_LOG_H_
#define DELTAPIPE_BASE_LOG_H_

#include <functional>
#include <sstream>
#include <string>

#include "absl/status/status.h"

namespace deltapipe {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Sets the least level that is written (default kInfo) and the program's name
/// that starts each line, such as "worker 3".
void ConfigureLog(LogLevel least, const std::string& name);
/// Parses debug|info|warning|error; INVALID_ARGUMENT otherwise.
absl::Status ParseLogLevel(const std::string& text, LogLevel* level);
bool LogEnabled(LogLevel level);
void WriteLog(LogLevel level, const std::string& text);
/// Also hands each written line to `sink` (empty: to nobody), on the thread
/// that logs; the sink must not log. A line under way may still reach a former
/// sink.
void SetLogSink(std::function<void(LogLevel, const std::string&)> sink);

/// Collects one line and writes it when destroyed.
class LogLine {
 public:
  explicit LogLine(LogLevel level) : level_(level) {}
  ~LogLine() { WriteLog(level_, text_.str()); }
  std::ostream& stream() { return text_; }

 private:
  const LogLevel level_;
  std::ostringstream text_;
};

}  // namespace deltapipe

#define DP_LOG_(level)                                          \
  if (!::deltapipe::LogEnabled(::deltapipe::LogLevel::level)) { \
  } else                                                        \
    ::deltapipe::LogLine(::deltapipe::LogLevel::level).stream()

#define LOG_DEBUG DP_LOG_(kDebug)
#define LOG_INFO DP_LOG_(kInfo)
#define LOG_WARNING DP_LOG_(kWarning)
#define LOG_ERROR DP_LOG_(kError)

#endif  // DELTAPIPE_BASE_LOG_H_
