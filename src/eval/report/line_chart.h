#pragma once

#include <optional>
#include <string>
#include <vector>

#include "eval/report/axis.h"

namespace oryx::report {

struct Point {
  double x, y;                       // a value that is not finite breaks the line
  std::optional<double> error = {};  // half width of the interval drawn around y
};

enum class Marker { none, circle, square, diamond, triangle };

struct Series {
  std::string name;
  std::string style;          // a class of the style sheet: attention, recurrent, mixed, other, muted
  std::vector<Point> points;  // ascending x
  Marker marker = Marker::none;
  bool dashed = false;
};

// Several series over one pair of axes as an HTML <figure>: legend, inline SVG, caption, and the numbers as a table
// that unfolds, for readers who do not see the drawing. Pointing at the plot shows the values there; no script is
// needed.
struct LineChart {
  std::string title;    // plain text
  std::string caption;  // plain text below the plot; may be empty
  Axis x, y;
  std::vector<Series> series;
  int width = 720, height = 340;  // of the drawing, in its own units; it scales with the page

  std::string html() const;
};

// A running mean over a sixtieth of the points: the loss of one training step is noisy.
std::vector<Point> smoothed(const std::vector<Point>& points);

}  // namespace oryx::report
