#include "data/byte_alphabet.h"

#include <array>

#include "base/text.h"

namespace oryx {
namespace {

constexpr int kCharacters = 0x100 + 68;  // 68 bytes are not printable

// The byte that each character stands for, or -1.
std::array<int, kCharacters> make_table() {
  std::array<int, kCharacters> table{};
  table.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table[printable ? byte : next++] = byte;
  }
  return table;
}

}  // namespace

std::optional<std::string> bytes_of(std::string_view written) {
  static const std::array<int, kCharacters> kTable = make_table();
  std::string bytes;
  while (!written.empty()) {
    const size_t length = utf8_sequence_length(written);
    if (length != 1 && length != 2) return std::nullopt;
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(written[i]); };
    const int character = length == 1 ? byte(0) : (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    if (character >= kCharacters || kTable[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kTable[character]);
    written.remove_prefix(length);
  }
  return bytes;
}

}  // namespace oryx
