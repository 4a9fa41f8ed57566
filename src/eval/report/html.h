#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace oryx::report {

// Text fit for an HTML element or a quoted attribute. Control characters that HTML forbids are left out.
std::string escape_html(std::string_view text);

// A data table with a caption, column headings and, in the first column, row headings. Cells are escaped unless they
// were added as markup.
class Table {
 public:
  enum class Align { left, right };
  struct Column {
    std::string heading;
    Align align = Align::right;
  };
  struct Cell {
    std::string content;
    bool markup = false;
  };
  static Cell markup(std::string html) { return {std::move(html), true}; }
  static Cell text(std::string text) { return {std::move(text), false}; }

  Table(std::string caption, std::vector<Column> columns)
      : caption_(std::move(caption)), columns_(std::move(columns)) {}
  // InputError unless there is a cell for each column.
  void add_row(std::vector<Cell> cells);
  std::string html() const;

 private:
  std::string caption_;
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// A self-contained document: `body` is markup that goes into <main>; the style sheet, for light and dark displays and
// for print, is part of the page. Nothing is fetched when it is viewed.
std::string html_page(std::string_view title, std::string_view description, std::string_view body);

}  // namespace oryx::report
