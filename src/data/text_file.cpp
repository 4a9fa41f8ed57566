#include "data/text_file.h"

#include "base/error.h"
#include "base/text.h"
#include "data/byte_reader.h"

namespace oryx {
namespace {

constexpr size_t kReadBytes = 1 << 20;

}  // namespace

std::string_view without_line_end(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

std::string read_utf8_file(const std::filesystem::path& path) {
  ByteReader reader(path);
  std::string text;
  for (size_t count = 1; count > 0;) {
    const size_t size = text.size();
    text.resize(size + kReadBytes);
    count = reader.read(text.data() + size, kReadBytes);
    text.resize(size + count);
  }
  const size_t invalid = find_invalid_utf8(text);
  require(invalid == std::string_view::npos, "{} is not UTF-8 text: invalid byte 0x{:02x} at offset {}", path.string(),
          invalid < text.size() ? static_cast<unsigned char>(text[invalid]) : 0, invalid);
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
