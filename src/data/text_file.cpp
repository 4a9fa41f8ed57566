#include "data/text_file.h"

#include <zstd.h>

#include <memory>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

namespace oryx {
namespace {

constexpr std::string_view kZstdMagic{"\x28\xb5\x2f\xfd", 4};

std::string unpack(std::string_view packed, const std::string& path) {
  const std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream(ZSTD_createDStream(), ZSTD_freeDStream);
  require(stream != nullptr, "cannot unpack {}: out of memory", path);
  std::string text, buffer(ZSTD_DStreamOutSize(), '\0');
  ZSTD_inBuffer input{packed.data(), packed.size(), 0};
  size_t remaining = 0;
  // A full output buffer may leave more in the decoder after the last input byte has been taken.
  for (bool full = false; input.pos < input.size || full;) {
    ZSTD_outBuffer output{buffer.data(), buffer.size(), 0};
    remaining = ZSTD_decompressStream(stream.get(), &output, &input);
    require(!ZSTD_isError(remaining), "cannot unpack {}: {}; it should be a whole Zstandard file", path,
            ZSTD_getErrorName(remaining));
    text.append(buffer.data(), output.pos);
    full = output.pos == output.size && remaining != 0;
  }
  require(remaining == 0, "cannot unpack {}: it ends within a frame; it should be a whole Zstandard file", path);
  return text;
}

void require_utf8(std::string_view text, const std::string& path) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = static_cast<unsigned char>(text[at]) < 0x80 ? 1 : utf8_sequence_length(text.substr(at));
    require(length > 0, "{} is not UTF-8 text: invalid byte 0x{:02x} at offset {}", path,
            static_cast<unsigned char>(text[at]), at);
    at += length;
  }
}

std::string_view without_line_end(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::string read_utf8_file(const std::filesystem::path& path) {
  std::string text = read_text_file(path);
  if (text.starts_with(kZstdMagic)) text = unpack(text, path.string());
  require_utf8(text, path.string());
  return text;
}

std::vector<std::string_view> split_documents(std::string_view text) {
  std::vector<std::string_view> documents;
  size_t document = 0;
  const auto end_document = [&](size_t end) {
    const std::string_view body = without_line_end(text.substr(document, end - document));
    if (!body.empty()) documents.push_back(body);
  };
  for (size_t line = 0; line < text.size();) {
    const size_t line_end = text.find('\n', line);
    const size_t next = line_end == std::string_view::npos ? text.size() : line_end + 1;
    if (without_line_end(text.substr(line, next - line)) == kDocumentSeparator) {
      end_document(line);
      document = next;
    }
    line = next;
  }
  end_document(text.size());
  return documents;
}

}  // namespace oryx
