#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/mutex.h"

namespace deltapipe {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger& Logger() {
  // Never destroyed: threads may log while the process exits.
  static spdlog::logger* const logger = [] {
    auto* made = new spdlog::logger(
        "deltapipe", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%H:%M:%S.%e %^%L%$ %v");
    made->set_level(spdlog::level::info);
    return made;
  }();
  return *logger;
}

/// The second receiver of log lines, if any.
class LogSink {
 public:
  void Set(std::function<void(LogLevel, const std::string&)> sink) {
    MutexLock lock(&mutex_);
    sink_ = std::move(sink);
  }
  void Write(LogLevel level, const std::string& text) {
    std::function<void(LogLevel, const std::string&)> sink;
    {
      MutexLock lock(&mutex_);
      sink = sink_;
    }
    if (sink) sink(level, text);
  }

 private:
  Mutex mutex_;
  std::function<void(LogLevel, const std::string&)> sink_ DP_GUARDED_BY(mutex_);
};

LogSink& Sink() {
  static LogSink* const sink = new LogSink;
  return *sink;
}

}  // namespace

void ConfigureLog(LogLevel least, const std::string& name) {
  const std::string escaped = absl::StrReplaceAll(name, {{"%", "%%"}});
  Logger().set_pattern(absl::StrCat("%H:%M:%S.%e %^%L%$ ", escaped,
                                    escaped.empty() ? "" : ": ", "%v"));
  Logger().set_level(ToSpdlog(least));
}

absl::Status ParseLogLevel(const std::string& text, LogLevel* level) {
  if (text == "debug") {
    *level = LogLevel::kDebug;
  } else if (text == "info") {
    *level = LogLevel::kInfo;
  } else if (text == "warning") {
    *level = LogLevel::kWarning;
  } else if (text == "error") {
    *level = LogLevel::kError;
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "log level: expected debug, info, warning or error, got '", text, "'"));
  }
  return absl::OkStatus();
}

bool LogEnabled(LogLevel level) { return Logger().should_log(ToSpdlog(level)); }

void WriteLog(LogLevel level, const std::string& text) {
  Logger().log(ToSpdlog(level), text);
  Sink().Write(level, text);
}

void SetLogSink(std::function<void(LogLevel, const std::string&)> sink) {
  Sink().Set(std::move(sink));
}

}  // namespace deltapipe
