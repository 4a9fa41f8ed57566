#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace oryx {

// `text` made fit for one line of an error message: control characters and bytes that are not UTF-8 are written as
// \xNN, and what is longer than `limit` bytes ends in "...".
std::string excerpt(std::string_view text, size_t limit = 80);

// The length in bytes of the valid UTF-8 sequence that `text` begins with; 0 when it begins with none.
size_t utf8_sequence_length(std::string_view text);

// The offset of the first byte that is not UTF-8; npos when there is none.
size_t find_invalid_utf8(std::string_view text);

// Without the spaces, tabs and line ends around it.
std::string_view trim(std::string_view text);

}  // namespace oryx
