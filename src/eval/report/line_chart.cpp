#include "eval/report/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "eval/report/html.h"

namespace oryx::report {
namespace {

constexpr double kLeft = 52, kRight = 20, kTop = 34, kBottom = 46;  // margins around the plot
constexpr double kMarker = 4;                                       // half a marker's size
constexpr double kProbe = 5;                                        // least distance of two places with a tip

// Marks of about equal area, centred on (x, y).
std::string marker_shape(Marker marker, double x, double y, double r) {
  switch (marker) {
    case Marker::none:
      return "";
    case Marker::circle:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"/>", x, y, r);
    case Marker::square:
      return fmt::format("<path d=\"M{:.1f} {:.1f}h{:.1f}v{:.1f}h{:.1f}z\"/>", x - 0.9 * r, y - 0.9 * r, 1.8 * r,
                         1.8 * r, -1.8 * r);
    case Marker::diamond:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l{r:.1f} {r:.1f} {n:.1f} {r:.1f} {n:.1f} {n:.1f}z\"/>", x,
                         y - 1.25 * r, fmt::arg("r", 1.25 * r), fmt::arg("n", -1.25 * r));
    case Marker::triangle:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l{:.1f} {:.1f}h{:.1f}z\"/>", x, y - 1.2 * r, 1.25 * r, 2.2 * r,
                         -2.5 * r);
  }
  return "";
}

class Drawing {
 public:
  explicit Drawing(const LineChart& chart)
      : chart_(chart),
        right_(chart.width - kRight),
        bottom_(chart.height - kBottom),
        x_(chart.x, values([](const Point& p) { return std::vector{p.x}; }), kLeft, right_, 8),
        y_(chart.y, values([](const Point& p) {
             return std::vector{p.y, p.y - p.error.value_or(0), p.y + p.error.value_or(0)};
           }),
           bottom_, kTop, 5) {}

  std::string svg() const {
    std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", chart_.width,
                                  chart_.height, escape_html(summary()));
    out += axes();
    // Nested, so that what leaves the plot is cut off at its edge.
    out += fmt::format(
        "<svg x=\"{0}\" y=\"{1}\" width=\"{2:.1f}\" height=\"{3:.1f}\" viewBox=\"{0} {1} {2:.1f} {3:.1f}\">\n", kLeft,
        kTop, right_ - kLeft, bottom_ - kTop);
    for (const Series& s : chart_.series) out += line(s);
    out += "</svg>\n";
    for (const Series& s : chart_.series) out += marks(s);
    return out + tips() + "</svg>\n";
  }

  std::string table() const {
    std::vector<Table::Column> columns{{chart_.x.label}};
    for (const Series& s : chart_.series) columns.push_back({s.name});
    Table table(chart_.title, columns);
    for (const double x : probes(0)) {
      std::vector<Table::Cell> row{Table::text(format_value(x, chart_.x.unit))};
      for (const Series& s : chart_.series) {
        const Point* p = find(s, x);
        row.push_back(Table::text(p ? value(*p) : ""));
      }
      table.add_row(std::move(row));
    }
    return table.html();
  }

 private:
  template <typename Get>
  std::vector<double> values(Get get) const {
    std::vector<double> all;
    for (const Series& s : chart_.series)
      for (const Point& p : s.points) std::ranges::copy(get(p), std::back_inserter(all));
    return all;
  }

  bool visible(const Point& p) const { return x_.shows(p.x) && y_.shows(p.y); }
  bool inside(const Point& p) const {
    return visible(p) && p.x >= x_.low() && p.x <= x_.high() && p.y >= y_.low() && p.y <= y_.high();
  }

  std::string value(const Point& p) const {
    std::string text = format_value(p.y, chart_.y.unit);
    if (p.error) text += " ± " + format_value(*p.error, chart_.y.unit);
    return text;
  }

  std::string summary() const {
    std::string names;
    for (const Series& s : chart_.series) names += (names.empty() ? "" : ", ") + s.name;
    return fmt::format("{}. {} against {}: {}.", chart_.title, chart_.y.label, chart_.x.label, names);
  }

  std::string axes() const {
    std::string out = "<g class=\"grid\">\n";
    for (const Tick& t : y_.ticks())
      out += fmt::format("<path d=\"M{:.1f} {:.1f}H{:.1f}\"/>", kLeft, y_.place(t.value), right_);
    for (const Tick& t : x_.ticks()) out += fmt::format("<path d=\"M{:.1f} {:.1f}v5\"/>", x_.place(t.value), bottom_);
    out += fmt::format("</g>\n<path class=\"axis\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>\n<g class=\"ticks\">\n", kLeft,
                       bottom_, right_);
    for (const Tick& t : y_.ticks())
      out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", kLeft - 8,
                         y_.place(t.value) + 4, escape_html(t.label));
    for (const Tick& t : x_.ticks())
      out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", x_.place(t.value),
                         bottom_ + 20, escape_html(t.label));
    return out + fmt::format(
                     "\n</g>\n<text class=\"label\" x=\"4\" y=\"16\">{}</text>\n"
                     "<text class=\"label\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
                     escape_html(chart_.y.label), right_, bottom_ + 40, escape_html(chart_.x.label));
  }

  // Beyond the range a line goes on towards its points, so that it leaves the plot at the right angle.
  static double extend(const Scale& scale, double value) {
    if (value >= scale.low() && value <= scale.high()) return scale.place(value);
    const double low = scale.place(scale.low()), high = scale.place(scale.high());
    const double part = (value - scale.low()) / (scale.high() - scale.low());
    return low + std::clamp(part, -10.0, 10.0) * (high - low);
  }

  std::string line(const Series& s) const {
    std::string path;
    bool open = false;
    for (const Point& p : s.points) {
      if (visible(p)) path += fmt::format("{}{:.1f} {:.1f}", open ? 'L' : 'M', extend(x_, p.x), extend(y_, p.y));
      open = visible(p);
    }
    if (path.empty()) return "";
    return fmt::format("<path class=\"line {}{}\" d=\"{}\"/>\n", escape_html(s.style), s.dashed ? " dashed" : "", path);
  }

  std::string marks(const Series& s) const {
    std::string bars, shapes;
    for (const Point& p : s.points) {
      if (!inside(p)) continue;
      const double x = x_.place(p.x);
      if (p.error)
        bars += fmt::format("<path d=\"M{0:.1f} {1:.1f}V{2:.1f}M{3:.1f} {1:.1f}h6M{3:.1f} {2:.1f}h6\"/>", x,
                            y_.place(p.y - *p.error), y_.place(p.y + *p.error), x - 3);
      shapes += marker_shape(s.marker, x, y_.place(p.y), kMarker);
    }
    std::string out;
    if (!bars.empty()) out += fmt::format("<g class=\"error {}\">{}</g>\n", escape_html(s.style), bars);
    if (!shapes.empty()) out += fmt::format("<g class=\"mark {}\">{}</g>\n", escape_html(s.style), shapes);
    return out;
  }

  static const Point* find(const Series& s, double x) {
    const auto at = std::ranges::lower_bound(s.points, x, {}, &Point::x);
    return at != s.points.end() && at->x == x ? &*at : nullptr;
  }

  // Every x of the data, at least `distance` pixels apart; where they are closer, those of most series are kept.
  std::vector<double> probes(double distance) const {
    std::vector<double> all;
    for (const Series& s : chart_.series)
      for (const Point& p : s.points)
        if (inside(p)) all.push_back(p.x);
    std::ranges::sort(all);
    std::vector<double> kept;
    size_t kept_series = 0;
    for (size_t i = 0; i < all.size();) {
      size_t next = i;
      while (next < all.size() && all[next] == all[i]) ++next;
      const size_t series = next - i;
      if (kept.empty() || x_.place(all[i]) - x_.place(kept.back()) >= distance) {
        kept.push_back(all[i]), kept_series = series;
      } else if (series > kept_series) {
        kept.back() = all[i], kept_series = series;
      }
      i = next;
    }
    return kept;
  }

  std::string tips() const {
    const std::vector<double> xs = probes(kProbe);
    std::string out = "<g class=\"tips\">\n";
    for (size_t i = 0; i < xs.size(); ++i) {
      const double x = x_.place(xs[i]);
      const double from = i == 0 ? kLeft : (x_.place(xs[i - 1]) + x) / 2;
      const double to = i + 1 == xs.size() ? right_ : (x + x_.place(xs[i + 1])) / 2;
      out += fmt::format("<g><rect class=\"hit\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", from,
                         kTop, to - from, bottom_ - kTop);
      out += tip(xs[i], x) + "</g>\n";
    }
    return out + "</g>\n";
  }

  std::string tip(double value_x, double x) const {
    std::vector<std::pair<std::string, std::string>> lines{
        // style, text
        {"", fmt::format("{} {}", chart_.x.label, format_value(value_x, chart_.x.unit))}};
    std::string dots;
    for (const Series& s : chart_.series) {
      const Point* p = find(s, value_x);
      if (!p || !inside(*p)) continue;
      lines.emplace_back(s.style, fmt::format("{} {}", s.name, value(*p)));
      dots += fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"/>", escape_html(s.style), x,
                          y_.place(p->y));
    }
    size_t longest = 0;
    for (const auto& [style, text] : lines) longest = std::max(longest, text.size());
    const double box = 7.0 * static_cast<double>(longest) + 18, tall = 18.0 * static_cast<double>(lines.size()) + 8;
    const double left = x + 10 + box <= right_ ? x + 10 : std::max(kLeft, x - 10 - box);
    // Away from the curves that it describes: at the bottom when they run high, at the top otherwise.
    double lowest = kTop;
    for (const Series& s : chart_.series)
      if (const Point* p = find(s, value_x); p && inside(*p)) lowest = std::max(lowest, y_.place(p->y));
    const double top = lowest + 14 + tall < bottom_ ? lowest + 14 : kTop + 4;
    std::string out = fmt::format(
        "<g class=\"tip\"><path class=\"guide\" d=\"M{:.1f} {:.1f}V{:.1f}\"/>{}"
        "<rect class=\"box\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"4\"/>",
        x, kTop, bottom_, dots, left, top, box, tall);
    for (size_t i = 0; i < lines.size(); ++i)
      out += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", escape_html(lines[i].first),
                         left + 9, top + 19 + 18.0 * static_cast<double>(i), escape_html(lines[i].second));
    return out + "</g>";
  }

  const LineChart& chart_;
  double right_, bottom_;
  Scale x_, y_;
};

std::string legend(const LineChart& chart) {
  std::string out = "<ul class=\"legend\">\n";
  for (const Series& s : chart.series)
    out += fmt::format(
        "<li><svg viewBox=\"0 0 30 12\" aria-hidden=\"true\"><path class=\"line {0}{1}\" d=\"M1 6H29\"/>"
        "<g class=\"mark {0}\">{2}</g></svg>{3}</li>\n",
        escape_html(s.style), s.dashed ? " dashed" : "", marker_shape(s.marker, 15, 6, kMarker), escape_html(s.name));
  return out + "</ul>\n";
}

}  // namespace

std::string LineChart::html() const {
  const Drawing drawing(*this);
  std::string out = fmt::format("<figure>\n<p class=\"title\">{}</p>\n{}<div class=\"plot\">\n{}</div>\n",
                                escape_html(title), legend(*this), drawing.svg());
  if (!caption.empty()) out += fmt::format("<figcaption>{}</figcaption>\n", escape_html(caption));
  return out + fmt::format("<details><summary>The numbers</summary>\n{}</details>\n</figure>\n", drawing.table());
}

std::vector<Point> smoothed(const std::vector<Point>& points) {
  const double keep = std::exp(-1.0 / std::max(1.0, static_cast<double>(points.size()) / 60));
  std::vector<Point> out;
  double mean = 0, weight = 0;
  for (const Point& p : points) {
    mean = keep * mean + (1 - keep) * p.y, weight = keep * weight + (1 - keep);
    out.push_back({p.x, mean / weight});
  }
  return out;
}

}  // namespace oryx::report
