#include "eval/report/html.h"

#include "base/error.h"
#include "eval/report/style.h"

namespace oryx::report {

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default: {
        const auto byte = static_cast<unsigned char>(c);
        if ((byte >= 0x20 && byte != 0x7f) || c == '\n' || c == '\t') out += c;
      }
    }
  }
  return out;
}

void Table::add_row(std::vector<Cell> cells) {
  require(cells.size() == columns_.size(), "a row of the table '{}' needs {} cells, but has {}", caption_,
          columns_.size(), cells.size());
  rows_.push_back(std::move(cells));
}

std::string Table::html() const {
  const auto classes = [&](size_t i) { return columns_[i].align == Align::right ? " class=\"number\"" : ""; };
  std::string out = "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"" + escape_html(caption_) +
                    "\">\n<table>\n<caption>" + escape_html(caption_) + "</caption>\n<thead><tr>";
  for (size_t i = 0; i < columns_.size(); ++i)
    out += fmt::format("<th scope=\"col\"{}>{}</th>", classes(i), escape_html(columns_[i].heading));
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows_) {
    out += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string content = row[i].markup ? row[i].content : escape_html(row[i].content);
      out += i == 0 ? fmt::format("<th scope=\"row\"{}>{}</th>", classes(i), content)
                    : fmt::format("<td{}>{}</td>", classes(i), content);
    }
    out += "</tr>\n";
  }
  return out + "</tbody>\n</table>\n</div>\n";
}

std::string html_page(std::string_view title, std::string_view description, std::string_view body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"description\" content=\"{}\">\n"
      "<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
      escape_html(description), escape_html(title), kStyle, body);
}

}  // namespace oryx::report
