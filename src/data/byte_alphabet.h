#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace oryx {

// The characters in which GPT-2 and its followers write bytes: printable Latin-1 stands for itself, the other bytes for
// U+0100 and on in their order (a space is "\u0120"). The bytes that `written` stands for; nothing when it holds
// another character.
std::optional<std::string> bytes_of(std::string_view written);

}  // namespace oryx
