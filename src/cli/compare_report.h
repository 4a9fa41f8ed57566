#pragma once

#include <string>

#include "base/json.h"

namespace oryx::cli {

// comparison.json as a Markdown document, and as one self-contained HTML page with curves.
std::string comparison_markdown(const Json& results);
std::string comparison_page(const Json& results);

}  // namespace oryx::cli
