// What the streams of this process are: terminals or not, how wide, coloured or
// not.
#ifndef DELTAPIPE_COORDINATOR_CLI_TERMINAL_H_
#define DELTAPIPE_COORDINATOR_CLI_TERMINAL_H_

#include <string>

namespace deltapipe {

/// Whether stderr is a terminal that understands cursor movement (TERM is not
/// "dumb").
bool StderrIsTerminal();
/// Columns of the terminal on stderr; 80 where that is unknown.
int TerminalColumns();
/// Whether colours may be used on stderr: a terminal, and NO_COLOR is not set.
bool StderrIsColoured();

/// `text` in bold red or in bold where stderr is coloured.
std::string Red(const std::string& text);
std::string Bold(const std::string& text);

/// Writes "error: MESSAGE" to stderr.
void PrintError(const std::string& message);
/// Writes a line to stderr.
void PrintNote(const std::string& line);
/// Writes `text` to stdout and flushes it.
void PrintData(const std::string& text);
/// Flushes stdout; whether all that was ever written to it has arrived.
bool IsOutputWhole();

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_TERMINAL_H_
