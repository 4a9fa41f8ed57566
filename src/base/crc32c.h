#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace oryx {

// CRC-32C (Castagnoli, RFC 3720 appendix B.4): of a whole, or of its parts in turn, each given the sum so far.
uint32_t crc32c(const void* data, size_t bytes, uint32_t so_far = 0);
inline uint32_t crc32c(std::string_view text) {
  return crc32c(text.data(), text.size());
}

}  // namespace oryx
