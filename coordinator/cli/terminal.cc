#include "coordinator/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace deltapipe {
namespace {

std::string Decorated(const char* code, const std::string& text) {
  if (!StderrIsColoured()) return text;
  return std::string("\x1b[") + code + "m" + text + "\x1b[0m";
}

}  // namespace

bool StderrIsTerminal() {
  const char* kind = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && kind != nullptr &&
         std::strcmp(kind, "dumb") != 0;
}

int TerminalColumns() {
  winsize size = {};
  const bool is_known =
      ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : 80;
}

bool StderrIsColoured() {
  const char* no_color = std::getenv("NO_COLOR");
  return StderrIsTerminal() && (no_color == nullptr || *no_color == '\0');
}

std::string Red(const std::string& text) { return Decorated("1;31", text); }
std::string Bold(const std::string& text) { return Decorated("1", text); }

void PrintError(const std::string& message) {
  std::fprintf(stderr, "%s %s\n", Red("error:").c_str(), message.c_str());
  std::fflush(stderr);
}

void PrintNote(const std::string& line) {
  std::fprintf(stderr, "%s\n", line.c_str());
  std::fflush(stderr);
}

void PrintData(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

bool IsOutputWhole() {
  return std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
}

}  // namespace deltapipe
