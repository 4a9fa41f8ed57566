#pragma once

#include <string>

#include "base/json.h"

namespace oryx::cli {

// results.json of the demo, as one self-contained HTML page.
std::string demo_page(const Json& results);

// Its "recall" and its "text" for a terminal. `color` marks mixers by colour, otherwise [attention] and {recurrent} do.
std::string recall_summary(const Json& recall);
std::string text_summary(const Json& text, bool color);

}  // namespace oryx::cli
