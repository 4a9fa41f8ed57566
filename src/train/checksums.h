#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace oryx {

// DIRECTORY/checksums.json: size and CRC-32C of each file beside it. Written last, before the directory gets its name.
void write_checksums(const std::filesystem::path& directory);

// What is wrong with a directory that has checksums.json: the file and how it differs. Absent when all is as written.
std::optional<std::string> find_damage(const std::filesystem::path& directory);

}  // namespace oryx
