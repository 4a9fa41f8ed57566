#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace oryx {

// Stands alone on a line between two documents of a text file.
inline constexpr std::string_view kDocumentSeparator = "<|endoftext|>";

// `text` but for one line end ("\n" or "\r\n") at its end.
std::string_view without_line_end(std::string_view text);

// A text file whole, unpacked as ByteReader does. InputError when it
// cannot be read, a frame is damaged or cut short, or the text is not UTF-8 (the message gives the byte offset).
std::string read_utf8_file(const std::filesystem::path& path);

// The documents of `text`: what lies between lines that hold only kDocumentSeparator ("\r\n" counts as a line end
// there). A document keeps its characters as they are, but for the one line end before a separator or the end of the
// file; empty documents are left out. The views point into `text`.
std::vector<std::string_view> split_documents(std::string_view text);

}  // namespace oryx
