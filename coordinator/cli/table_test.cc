#include "coordinator/cli/table.h"

#include <gtest/gtest.h>

namespace deltapipe {
namespace {

TEST(TableTest, AlignsColumnsAndDropsTrailingSpaces) {
  Table table({"NAME", "BYTES", "NOTE"}, {Align::kLeft, Align::kRight});
  table.AddRow({"a", "1,000", ""});
  table.AddRow({"longer", "7", "x"});

  EXPECT_EQ(table.ToString(),
            "NAME    BYTES  NOTE\n"
            "a       1,000\n"
            "longer      7  x\n");
}

TEST(TableTest, EmptyHeadersAreLeftOutAndShortRowsAreFilled) {
  Table table({"", "", ""});
  table.AddRow({"state", "RUNNING"});
  table.AddRow({"x"});

  EXPECT_EQ(table.ToString(), "state  RUNNING\nx\n");
}

TEST(TableTest, WidthsCountCharactersNotBytes) {
  Table table({"", ""});
  table.AddRow({"\xc3\xbc\xc3\xb6", "a"});
  table.AddRow({"uo", "b"});

  EXPECT_EQ(TextWidth("\xc3\xbc\xc3\xb6"), 2);
  EXPECT_EQ(table.ToString(), "\xc3\xbc\xc3\xb6  a\nuo  b\n");
}

}  // namespace
}  // namespace deltapipe
