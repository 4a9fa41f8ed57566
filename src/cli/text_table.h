#pragma once

#include <string>
#include <vector>

namespace oryx::cli {

// A table for all forms of a report: rows of plain text, the first one the headings.
using TextTable = std::vector<std::vector<std::string>>;

std::string markdown_table(const TextTable& rows);
std::string html_table(const std::string& caption, const TextTable& rows);

}  // namespace oryx::cli
