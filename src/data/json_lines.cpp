#include "data/json_lines.h"

#include <fmt/format.h>

#include "base/text.h"
#include "data/text_file.h"

namespace oryx {

void for_each_json_line(const std::filesystem::path& path,
                        const std::function<void(const Json& json, const std::string& where)>& visit) {
  const std::string text = read_utf8_file(path);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (trim(line).empty()) continue;
    const std::string where = fmt::format("{}:{}", path.string(), number);
    visit(parse_json(line, where), where);
  }
}

}  // namespace oryx
