#include "worker/lab/svg_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace deltapipe {
namespace {

constexpr double kWidth = 1100;
constexpr double kHeight = 760;
// The frame of the plot.
constexpr double kLeft = 80;
constexpr double kRight = kWidth - 30;
constexpr double kTop = 50;
constexpr double kBottom = kHeight - 60;
constexpr double kRadius = 4;
// Of the labels: a guess at the width of a character that few fonts exceed.
constexpr double kCharacterWidth = 6.1;
constexpr double kLabelHeight = 12;

constexpr char kFrontColor[] = "#c0392b";
constexpr char kOtherColor[] = "#2c5f8a";

// Escapes what XML reserves; bytes that are no printable ASCII become '?'.
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c >= ' ' && c <= '~' ? c : '?';
    }
  }
  return escaped;
}

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;

  bool Overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom &&
           other.top < bottom;
  }
};

struct Place {
  double x = 0, y = 0;
};

// From values to places on the page.
class Axes {
 public:
  explicit Axes(const std::vector<PlotPoint>& points) {
    double low_x = 1e300, high_x = 0, low_y = 1e300, high_y = 0;
    for (const PlotPoint& point : points) {
      low_x = std::min(low_x, point.x);
      high_x = std::max(high_x, point.x);
      if (point.y == 0) {
        has_zero_ = true;
        continue;
      }
      low_y = std::min(low_y, point.y);
      high_y = std::max(high_y, point.y);
    }
    if (points.empty()) low_x = high_x = 1;
    if (high_y == 0) low_y = high_y = 1;
    // Some room on all sides, for labels.
    low_x_ = std::log2(low_x) - 0.3;
    high_x_ = std::log2(high_x) + 0.5;
    low_y_ = std::log10(low_y) - 0.2;
    high_y_ = std::log10(high_y) + 0.2;
    bottom_ = has_zero_ ? kBottom - 50 : kBottom;
  }

  double X(double x) const {
    return kLeft +
           (std::log2(x) - low_x_) / (high_x_ - low_x_) * (kRight - kLeft);
  }
  double Y(double y) const {
    if (y == 0) return kBottom - 20;
    return bottom_ -
           (std::log10(y) - low_y_) / (high_y_ - low_y_) * (bottom_ - kTop);
  }
  bool has_zero() const { return has_zero_; }
  double low_x() const { return low_x_; }
  double high_x() const { return high_x_; }
  double low_y() const { return low_y_; }
  double high_y() const { return high_y_; }

 private:
  bool has_zero_ = false;
  double low_x_ = 0, high_x_ = 0, low_y_ = 0, high_y_ = 0;
  double bottom_ = kBottom;
};

void AppendLine(double x1, double y1, double x2, double y2,
                const char* attributes, std::string* svg) {
  absl::StrAppendFormat(
      svg, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1,
      y1, x2, y2, attributes);
}

void AppendText(double x, double y, const std::string& attributes,
                const std::string& text, std::string* svg) {
  absl::StrAppendFormat(svg, "<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y,
                        attributes, Escaped(text));
}

void AppendAxes(const Axes& axes, const ScatterPlot& plot, std::string* svg) {
  constexpr char kGrid[] = "stroke=\"#e4e4e4\"";
  constexpr char kTick[] = "fill=\"#444\" font-size=\"12\"";
  for (int power = static_cast<int>(std::ceil(axes.low_x()));
       power <= axes.high_x(); ++power) {
    const double x = axes.X(std::exp2(power));
    AppendLine(x, kTop, x, kBottom, kGrid, svg);
    AppendText(x, kBottom + 18, absl::StrCat(kTick, " text-anchor=\"middle\""),
               absl::StrFormat("%g", std::exp2(power)), svg);
  }
  // Where there are few powers of ten, halves and fifths of them, too.
  const double decades = axes.high_y() - axes.low_y();
  for (int power = static_cast<int>(std::floor(axes.low_y()));
       power <= axes.high_y(); ++power) {
    for (const int times : {1, 2, 5}) {
      if (times > 1 && decades > 3) continue;
      const double value = times * std::pow(10.0, power);
      if (std::log10(value) < axes.low_y() ||
          std::log10(value) > axes.high_y()) {
        continue;
      }
      const double y = axes.Y(value);
      AppendLine(kLeft, y, kRight, y, kGrid, svg);
      AppendText(kLeft - 8, y + 4, absl::StrCat(kTick, " text-anchor=\"end\""),
                 absl::StrFormat("%g", value), svg);
    }
  }
  if (axes.has_zero()) {
    const double y = axes.Y(0);
    AppendLine(kLeft, y, kRight, y, "stroke=\"#999\" stroke-dasharray=\"3 3\"",
               svg);
    AppendText(kLeft - 8, y + 4, absl::StrCat(kTick, " text-anchor=\"end\""),
               "0", svg);
  }
  absl::StrAppendFormat(svg,
                        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                        "height=\"%.1f\" fill=\"none\" stroke=\"#888\"/>\n",
                        kLeft, kTop, kRight - kLeft, kBottom - kTop);
  AppendText(kWidth / 2, 28,
             "text-anchor=\"middle\" font-size=\"16\" font-weight=\"bold\"",
             plot.title, svg);
  AppendText((kLeft + kRight) / 2, kHeight - 16,
             "text-anchor=\"middle\" font-size=\"13\"", plot.x_label, svg);
  const double middle = (kTop + kBottom) / 2;
  AppendText(20, middle,
             absl::StrFormat("text-anchor=\"middle\" font-size=\"13\" "
                             "transform=\"rotate(-90 20 %.1f)\"",
                             middle),
             plot.y_label, svg);
}

// Steps: at each number of bits, the least error that is to be had. Corners
// and points in turn.
std::vector<Place> FrontLine(const Axes& axes,
                             const std::vector<PlotPoint>& points) {
  std::vector<Place> front;
  for (const PlotPoint& point : points) {
    if (point.is_on_front) front.push_back({axes.X(point.x), axes.Y(point.y)});
  }
  std::sort(front.begin(), front.end(),
            [](const Place& a, const Place& b) { return a.x < b.x; });
  std::vector<Place> line;
  for (const Place& point : front) {
    if (!line.empty()) line.push_back({point.x, line.back().y});
    line.push_back(point);
  }
  return line;
}

void AppendFront(const std::vector<Place>& line, std::string* svg) {
  if (line.size() < 2) return;
  std::string path;
  for (const Place& corner : line) {
    absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : "L",
                          corner.x, corner.y);
  }
  absl::StrAppendFormat(svg,
                        "<path d=\"%s\" fill=\"none\" stroke=\"%s\" "
                        "stroke-opacity=\"0.45\" stroke-width=\"1.5\"/>\n",
                        path, kFrontColor);
}

// Where a label may stand so that it covers no point, no part of the line and
// no other label.
class LabelLayout {
 public:
  void AddObstacle(const Box& box) { taken_.push_back(box); }

  /// The box for a label of `width`, and takes it; nothing if there is no room.
  std::optional<Box> Find(const Place& point, double width) {
    // Around the point in growing circles, to the right and above first.
    constexpr double kDegrees[] = {0,   -30, 30,  -60, 60,  180,
                                   210, 150, 240, 120, 270, 90};
    for (double distance = kRadius + 4; distance < 130; distance += 8) {
      for (const double degrees : kDegrees) {
        const double angle = degrees * 3.14159265358979 / 180;
        const double x = point.x + distance * std::cos(angle);
        const double y = point.y + distance * std::sin(angle);
        Box box;
        // The side of the label that is nearest to the point is at (x, y).
        box.left = std::cos(angle) > 0.1    ? x
                   : std::cos(angle) < -0.1 ? x - width
                                            : x - width / 2;
        box.right = box.left + width;
        box.top = y - kLabelHeight / 2;
        box.bottom = y + kLabelHeight / 2;
        if (IsFree(box)) {
          taken_.push_back(box);
          return box;
        }
      }
    }
    return std::nullopt;
  }

 private:
  bool IsFree(const Box& box) const {
    if (box.left < kLeft + 2 || box.right > kRight - 2 || box.top < kTop + 2 ||
        box.bottom > kBottom - 2) {
      return false;
    }
    return std::none_of(taken_.begin(), taken_.end(),
                        [&](const Box& other) { return box.Overlaps(other); });
  }

  std::vector<Box> taken_;
};

void AppendLabel(const PlotPoint& point, const Place& place, const Box& box,
                 std::string* leaders, std::string* labels) {
  const char* color = point.is_on_front ? kFrontColor : kOtherColor;
  const double near_x = std::clamp(place.x, box.left, box.right);
  const double near_y = (box.top + box.bottom) / 2;
  const double distance = std::hypot(near_x - place.x, near_y - place.y);
  if (distance > kRadius + 10) {
    AppendLine(place.x, place.y, near_x, near_y,
               "stroke=\"#bbb\" stroke-width=\"0.8\"", leaders);
  }
  // The guess at the width may be too large: keep the near side in its place.
  const bool is_left = box.right <= place.x;
  AppendText(
      is_left ? box.right : box.left, box.bottom - 2.5,
      absl::StrCat("font-size=\"11\" stroke=\"white\" stroke-width=\"3\" "
                   "paint-order=\"stroke\" fill=\"",
                   color, "\"", is_left ? " text-anchor=\"end\"" : "",
                   point.is_on_front ? " font-weight=\"bold\"" : ""),
      point.label, labels);
}

void AppendPoints(const Axes& axes, const std::vector<PlotPoint>& points,
                  const std::vector<Place>& line, std::string* svg) {
  LabelLayout layout;
  for (size_t i = 1; i < line.size(); ++i) {
    layout.AddObstacle({line[i - 1].x - 1, std::min(line[i - 1].y, line[i].y),
                        line[i].x + 1, std::max(line[i - 1].y, line[i].y) + 1});
  }
  for (const PlotPoint& point : points) {
    const Place place = {axes.X(point.x), axes.Y(point.y)};
    constexpr double kRoom = kRadius + 1;
    layout.AddObstacle(
        {place.x - kRoom, place.y - kRoom, place.x + kRoom, place.y + kRoom});
  }
  std::string leaders, labels, marks;
  for (const bool is_on_front : {true, false}) {
    for (const PlotPoint& point : points) {
      if (point.is_on_front != is_on_front) continue;
      const Place place = {axes.X(point.x), axes.Y(point.y)};
      absl::StrAppendFormat(
          &marks,
          "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\" fill=\"%s\" "
          "fill-opacity=\"0.85\"><title>%s: %.4g, %.4g</title></circle>\n",
          place.x, place.y, kRadius, is_on_front ? kFrontColor : kOtherColor,
          Escaped(point.label), point.x, point.y);
      const double bold = is_on_front ? 1.08 : 1;
      const std::optional<Box> box =
          layout.Find(place, static_cast<double>(point.label.size()) *
                                 kCharacterWidth * bold);
      if (box.has_value()) AppendLabel(point, place, *box, &leaders, &labels);
    }
  }
  absl::StrAppend(svg, leaders, labels, marks);
}

}  // namespace

std::string ScatterPlotSvg(const ScatterPlot& plot) {
  std::vector<PlotPoint> points;
  for (const PlotPoint& point : plot.points) {
    if (point.x > 0 && std::isfinite(point.x) && point.y >= 0 &&
        std::isfinite(point.y)) {
      points.push_back(point);
    }
  }
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" "
      "viewBox=\"0 0 %g %g\" font-family=\"Helvetica, Arial, sans-serif\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      kWidth, kHeight, kWidth, kHeight);
  const Axes axes(points);
  AppendAxes(axes, plot, &svg);
  const std::vector<Place> line = FrontLine(axes, points);
  AppendFront(line, &svg);
  AppendPoints(axes, points, line, &svg);
  return svg + "</svg>\n";
}

}  // namespace deltapipe
