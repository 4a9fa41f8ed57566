#include "cli/text_table.h"

#include "eval/report/html.h"

namespace oryx::cli {

std::string markdown_table(const TextTable& rows) {
  std::string out;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (const std::string& cell : rows[i]) out += "| " + cell + " ";
    out += "|\n";
    if (i > 0) continue;
    for (size_t c = 0; c < rows[0].size(); ++c) out += c == 0 ? "|---" : "|---:";
    out += "|\n";
  }
  return out;
}

std::string html_table(const std::string& caption, const TextTable& rows) {
  using report::Table;
  std::vector<Table::Column> columns;
  for (const std::string& heading : rows[0])
    columns.push_back({heading, columns.empty() ? Table::Align::left : Table::Align::right});
  Table table(caption, columns);
  for (size_t r = 1; r < rows.size(); ++r) {
    std::vector<Table::Cell> row;
    for (const std::string& cell : rows[r]) row.push_back(Table::text(cell));
    table.add_row(std::move(row));
  }
  return table.html();
}

}  // namespace oryx::cli
