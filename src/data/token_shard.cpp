#include "data/token_shard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <type_traits>

#include "base/error.h"
#include "base/files.h"

static_assert(std::endian::native == std::endian::little, "token shards are mapped and written as they lie in memory");

namespace oryx {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[] = "ORYXTOKS";
constexpr uint32_t kVersion = 1;

struct FileHeader {
  char magic[8];
  uint32_t version, width;
  uint64_t count, vocab_size;
  uint32_t eos_id, zero;
  uint64_t tokenizer_hash;
  char reserved[16];
};
static_assert(sizeof(FileHeader) == 64 && std::is_trivially_copyable_v<FileHeader>);

template <typename Id>
int64_t largest_id(const std::byte* data, int64_t count) {
  Id largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    Id id;
    std::memcpy(&id, data + i * sizeof(Id), sizeof(Id));
    largest = std::max(largest, id);
  }
  return largest;
}

template <typename Id>
void copy_ids(const std::byte* data, int64_t n, int64_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    Id id;
    std::memcpy(&id, data + i * sizeof(Id), sizeof(Id));
    out[i] = id;
  }
}

std::span<const std::byte> map_file(const fs::path& path) {
  const auto fail = [&](int code) {
    input_error("cannot read {}: {}", path.string(), std::generic_category().message(code));
  };
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(errno);
  struct stat status {};
  int error = fstat(descriptor, &status) == 0 ? 0 : errno;
  if (error == 0 && !S_ISREG(status.st_mode)) error = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  const size_t size = static_cast<size_t>(status.st_size);
  void* map = nullptr;
  if (error == 0 && size > 0) {
    map = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (map == MAP_FAILED) error = errno;
  }
  close(descriptor);
  if (error != 0) fail(error);
  return {static_cast<const std::byte*>(map), size};
}

void unmap(std::span<const std::byte> map) {
  if (!map.empty()) munmap(const_cast<std::byte*>(map.data()), map.size());
}

}  // namespace

int token_width(int64_t vocab_size) {
  return vocab_size <= 65536 ? 2 : 4;
}

std::vector<std::byte> pack_tokens(std::span<const int32_t> tokens, int64_t vocab_size) {
  const size_t width = static_cast<size_t>(token_width(vocab_size));
  std::vector<std::byte> packed(tokens.size() * width);
  for (size_t i = 0; i < tokens.size(); ++i) {
    require(tokens[i] >= 0 && tokens[i] < vocab_size, "token id {} is outside the vocabulary of {}", tokens[i],
            vocab_size);
    std::memcpy(packed.data() + i * width, &tokens[i], width);  // little-endian: the low bytes come first
  }
  return packed;
}

int64_t TokenSpan::operator[](int64_t index) const {
  int64_t id;
  copy(index, 1, &id);
  return id;
}

void TokenSpan::copy(int64_t begin, int64_t n, int64_t* out) const {
  if (width == 2) {
    copy_ids<uint16_t>(data + begin * 2, n, out);
  } else {
    copy_ids<uint32_t>(data + begin * 4, n, out);
  }
}

TokenShardView parse_token_shard(std::span<const std::byte> file, const std::string& source, ShardCheck check) {
  FileHeader header;
  require(file.size() >= sizeof header, "{}: {} bytes are too few for a token shard's header of {}", source,
          file.size(), sizeof header);
  std::memcpy(&header, file.data(), sizeof header);
  require(std::memcmp(header.magic, kMagic, sizeof header.magic) == 0, "{}: not a token shard; it should begin with {}",
          source, kMagic);
  require(header.version == kVersion, "{}: token shard version {}; this program reads version {}", source,
          header.version, kVersion);
  require(header.vocab_size >= 1 && header.vocab_size <= INT32_MAX && header.eos_id < header.vocab_size,
          "{}: damaged token shard: vocabulary {}, eos id {}", source, header.vocab_size, header.eos_id);
  const int width = token_width(static_cast<int64_t>(header.vocab_size));
  require(header.width == static_cast<uint32_t>(width) && header.zero == 0 &&
              std::all_of(std::begin(header.reserved), std::end(header.reserved), [](char c) { return c == 0; }),
          "{}: damaged token shard: a vocabulary of {} needs {} bytes per id, not {}, and reserved bytes that are zero",
          source, header.vocab_size, width, header.width);
  const uint64_t body = file.size() - sizeof header;
  require(body % width == 0 && body / width == header.count,
          "{}: token shard {}: its header promises {} tokens of {} bytes, the file holds {} bytes of them", source,
          header.count > body / width ? "cut short" : "too long", header.count, width, body);
  require(header.count > 0, "{}: token shard without tokens", source);
  TokenShardView view;
  view.header = {static_cast<int64_t>(header.vocab_size), static_cast<int32_t>(header.eos_id), header.tokenizer_hash};
  view.tokens = {file.data() + sizeof header, width, static_cast<int64_t>(header.count)};
  if (check == ShardCheck::sizes) return view;
  const int64_t largest = width == 2 ? largest_id<uint16_t>(view.tokens.data, view.tokens.count)
                                     : largest_id<uint32_t>(view.tokens.data, view.tokens.count);
  require(largest < view.header.vocab_size, "{}: damaged token shard: token id {} in a vocabulary of {}", source,
          largest, view.header.vocab_size);
  return view;
}

TokenShard::TokenShard(const fs::path& path, ShardCheck check) : map_(map_file(path)) {
  try {
    view_ = parse_token_shard(map_, path.string(), check);
  } catch (...) {
    unmap(map_);
    throw;
  }
}

TokenShard::~TokenShard() {
  unmap(map_);
}

void write_token_shard(const fs::path& path, const TokenShardHeader& header, std::span<const int32_t> tokens) {
  require(header.vocab_size >= 1 && header.vocab_size <= INT32_MAX && header.eos_id >= 0 &&
              header.eos_id < header.vocab_size,
          "a token shard needs a vocabulary with its eos id in it, not vocabulary {}, eos id {}", header.vocab_size,
          header.eos_id);
  FileHeader out{};
  std::memcpy(out.magic, kMagic, sizeof out.magic);
  out.version = kVersion;
  out.width = static_cast<uint32_t>(token_width(header.vocab_size));
  out.count = tokens.size();
  out.vocab_size = static_cast<uint64_t>(header.vocab_size);
  out.eos_id = static_cast<uint32_t>(header.eos_id);
  out.tokenizer_hash = header.tokenizer_hash;
  const std::vector<std::byte> ids = pack_tokens(tokens, header.vocab_size);
  FileWriter writer(path);
  writer.write(&out, sizeof out);
  writer.write(ids.data(), ids.size());
  writer.close();
}

}  // namespace oryx
