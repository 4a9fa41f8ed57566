#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace oryx {

// Stands alone on a line between two documents of a text file.
inline constexpr std::string_view kDocumentSeparator = "<|endoftext|>";

// A text file whole, unpacked when it begins with Zstandard's magic number (whatever its name is). InputError when it
// cannot be read, a frame is damaged or cut short, or the text is not UTF-8 (the message gives the byte offset).
std::string read_utf8_file(const std::filesystem::path& path);

// The documents of `text`: what lies between lines that hold only kDocumentSeparator ("\r\n" counts as a line end
// there). A document keeps its characters as they are, but for the one line end before a separator or the end of the
// file; empty documents are left out. The views point into `text`.
std::vector<std::string_view> split_documents(std::string_view text);

}  // namespace oryx
