#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/json.h"

namespace oryx {

// Calls `visit` with each value of a file of JSON lines, perhaps packed (.zst, .gz), and its place, "FILE:LINE". The
// byte 0x0A alone separates lines; empty ones are left out.
void for_each_json_line(const std::filesystem::path& path,
                        const std::function<void(const Json& json, const std::string& where)>& visit);

}  // namespace oryx
