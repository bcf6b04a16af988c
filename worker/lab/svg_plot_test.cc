#include "worker/lab/svg_plot.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// The number after `name="` in the first element after `from`.
double Attribute(const std::string& svg, size_t from, const char* name) {
  const std::string key = absl::StrCat(" ", name, "=\"");
  const size_t begin = svg.find(key, from) + key.size();
  double value = std::nan("");
  EXPECT_TRUE(absl::SimpleAtod(
      absl::string_view(svg).substr(begin, svg.find('"', begin) - begin),
      &value));
  return value;
}

struct Label {
  double left = 0, right = 0, y = 0;
};

// Of a label that the plot shows as text; its width by the narrowest guess.
Label FindLabel(const std::string& svg, const std::string& text) {
  const size_t end = svg.find(absl::StrCat(">", text, "</text>"));
  EXPECT_NE(end, std::string::npos) << text;
  const size_t begin = svg.rfind("<text", end);
  const double x = Attribute(svg, begin, "x");
  const double width = 5.0 * static_cast<double>(text.size());
  const bool is_left =
      svg.substr(begin, end - begin).find("text-anchor") != std::string::npos;
  return {is_left ? x - width : x, is_left ? x : x + width,
          Attribute(svg, begin, "y")};
}

// The circle whose tooltip begins with `label`.
size_t FindPoint(const std::string& svg, const std::string& label) {
  const size_t title = svg.find(absl::StrCat("<title>", label, ":"));
  return title == std::string::npos ? title : svg.rfind("<circle", title);
}

TEST(SvgPlotTest, PointsStandWhereTheirLogarithmsAre) {
  ScatterPlot plot;
  plot.points = {{"a", 1, 1, true}, {"b", 4, 0.1, true}, {"c", 16, 1e-2, true}};

  const std::string svg = ScatterPlotSvg(plot);

  EXPECT_THAT(svg, StartsWith("<svg "));
  EXPECT_THAT(svg, EndsWith("</svg>\n"));
  const auto x = [&](const char* label) {
    return Attribute(svg, FindPoint(svg, label), "cx");
  };
  const auto y = [&](const char* label) {
    return Attribute(svg, FindPoint(svg, label), "cy");
  };
  EXPECT_LT(x("a"), x("b"));
  EXPECT_NEAR(x("b") - x("a"), x("c") - x("b"), 0.2);
  EXPECT_LT(y("a"), y("b"));
  EXPECT_NEAR(y("b") - y("a"), y("c") - y("b"), 0.2);
}

TEST(SvgPlotTest, LabelsOfAClusterDoNotOverlap) {
  ScatterPlot plot;
  for (int i = 0; i < 12; ++i) {
    plot.points.push_back({absl::StrCat("codec(number=", i + 10, ")"),
                           4 + 0.02 * i, 0.1 + 0.001 * i, i % 4 == 0});
  }
  plot.points.push_back({"far", 0.5, 1, false});

  const std::string svg = ScatterPlotSvg(plot);

  std::vector<Label> labels;
  for (const PlotPoint& point : plot.points) {
    labels.push_back(FindLabel(svg, point.label));
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    EXPECT_GT(labels[i].left, 0) << i;
    for (size_t j = 0; j < i; ++j) {
      const bool is_apart = labels[i].right <= labels[j].left ||
                            labels[j].right <= labels[i].left ||
                            std::abs(labels[i].y - labels[j].y) >= 11;
      EXPECT_TRUE(is_apart)
          << plot.points[i].label << " and " << plot.points[j].label;
    }
  }
}

TEST(SvgPlotTest, ExactPointsLieBelowAllOthers) {
  ScatterPlot plot;
  plot.points = {{"exact", 32, 0, true}, {"tiny", 16, 1e-7, true}};

  const std::string svg = ScatterPlotSvg(plot);

  EXPECT_GT(Attribute(svg, FindPoint(svg, "exact"), "cy"),
            Attribute(svg, FindPoint(svg, "tiny"), "cy") + 10);
}

TEST(SvgPlotTest, WhatHasNoPlaceIsLeftOut) {
  ScatterPlot plot;
  plot.points = {{"nan", 4, std::numeric_limits<double>::quiet_NaN(), false},
                 {"empty", 0, 0.5, false},
                 {"infinite", 4, std::numeric_limits<double>::infinity(), true},
                 {"shown", 4, 0.5, false}};

  const std::string svg = ScatterPlotSvg(plot);

  for (const char* label : {"nan", "empty", "infinite"}) {
    EXPECT_EQ(FindPoint(svg, label), std::string::npos) << label;
    EXPECT_THAT(svg, Not(HasSubstr(absl::StrCat(">", label, "<"))));
  }
  EXPECT_NE(FindPoint(svg, "shown"), std::string::npos);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(ScatterPlotSvg({}), EndsWith("</svg>\n"));
  EXPECT_THAT(ScatterPlotSvg({}), Not(HasSubstr("inf")));
}

TEST(SvgPlotTest, TextIsEscaped) {
  ScatterPlot plot;
  plot.title = "a<b>&\"c\"\x01\xff";
  plot.points = {{"<script>", 1, 1, true}};

  const std::string svg = ScatterPlotSvg(plot);

  EXPECT_THAT(svg, HasSubstr("a&lt;b&gt;&amp;&quot;c&quot;??"));
  EXPECT_THAT(svg, Not(HasSubstr("<script>")));
}

}  // namespace
}  // namespace deltapipe
