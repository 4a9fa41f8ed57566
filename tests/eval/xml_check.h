#pragma once

#include <string>
#include <vector>

namespace oryx::report {

// "" when every element that `html` opens is closed in order (void elements of HTML aside); else the first tag at
// fault.
inline std::string unbalanced_tag(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return html.substr(at, 40);
    const std::string tag = html.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(tag[0] == '/' ? 1 : 0, tag.find_first_of(" \n/", 1) - (tag[0] == '/' ? 1 : 0));
    if (tag[0] == '!' || tag.back() == '/' || name == "meta" || name == "br") continue;
    if (tag[0] != '/') {
      open.push_back(name);
    } else {
      if (open.empty() || open.back() != tag.substr(1)) return tag;
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back();
}

}  // namespace oryx::report
