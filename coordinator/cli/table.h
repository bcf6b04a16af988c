// Tables of plain text for people: aligned columns, two spaces apart.
#ifndef DELTAPIPE_COORDINATOR_CLI_TABLE_H_
#define DELTAPIPE_COORDINATOR_CLI_TABLE_H_

#include <string>
#include <vector>

namespace deltapipe {

enum class Align { kLeft, kRight };

class Table {
 public:
  /// One entry per column; a missing alignment is kLeft.
  explicit Table(std::vector<std::string> headers,
                 std::vector<Align> alignment = {});

  /// A row may be shorter than the headers.
  void AddRow(std::vector<std::string> cells);

  /// Header line (unless every header is empty) and rows, each ending in '\n',
  /// without trailing spaces. Widths count UTF-8 characters.
  std::string ToString() const;

 private:
  std::vector<std::string> headers_;
  std::vector<Align> alignment_;
  std::vector<std::vector<std::string>> rows_;
};

/// Characters of a UTF-8 text.
int TextWidth(const std::string& text);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_TABLE_H_
