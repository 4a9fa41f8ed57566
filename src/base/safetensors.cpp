#include "base/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

// Format: https://github.com/huggingface/safetensors#format. A little-endian uint64 with the header's length, a JSON
// header, then the tensors' bytes without holes.
static_assert(std::endian::native == std::endian::little, "safetensors are mapped and written as they lie in memory");

namespace oryx {
namespace {

struct DtypeInfo {
  Dtype dtype;
  const char* name;
  size_t size;
};
constexpr std::array<DtypeInfo, 10> kDtypes{{{Dtype::f64, "F64", 8},
                                             {Dtype::f32, "F32", 4},
                                             {Dtype::f16, "F16", 2},
                                             {Dtype::bf16, "BF16", 2},
                                             {Dtype::i64, "I64", 8},
                                             {Dtype::i32, "I32", 4},
                                             {Dtype::i16, "I16", 2},
                                             {Dtype::i8, "I8", 1},
                                             {Dtype::u8, "U8", 1},
                                             {Dtype::boolean, "BOOL", 1}}};

constexpr uint64_t kMaxHeader = 100'000'000;  // also the limit of the format's own reader
constexpr size_t kMaxDimensions = 32;
constexpr const char* kMetadata = "__metadata__";

const DtypeInfo& info(Dtype dtype) {
  for (const DtypeInfo& entry : kDtypes) {
    if (entry.dtype == dtype) return entry;
  }
  input_error("no such dtype: {}", static_cast<int>(dtype));
}

uint64_t unsigned_value(const Json& value, const std::string& where) {
  require(value.is_number_unsigned(), "{} must hold integers that are not negative", where);
  return value.get<uint64_t>();
}

// Bytes of a tensor; an overflow of the product is an error even where a later dimension is 0.
uint64_t byte_size(Dtype dtype, const std::vector<int64_t>& shape, const std::string& where) {
  uint64_t bytes = dtype_size(dtype);
  for (int64_t dimension : shape) {
    require(dimension >= 0 && !__builtin_mul_overflow(bytes, static_cast<uint64_t>(dimension), &bytes) &&
                bytes <= uint64_t{INT64_MAX},
            "{}: the shape is too large or negative", where);
  }
  return bytes;
}

struct Entry {
  StoredTensor tensor;
  uint64_t begin, end;
  const std::string* name;
};

Entry parse_entry(const std::string& name, const Json& value, uint64_t data_size, const std::string& source) {
  const std::string where = fmt::format("{}: tensor '{}'", source, excerpt(name));
  require(value.is_object() && value.contains("dtype") && value.contains("shape") && value.contains("data_offsets"),
          "{} must have dtype, shape and data_offsets", where);
  Entry entry;
  entry.name = &name;

  const Json& dtype = value["dtype"];
  require(dtype.is_string(), "{}: dtype must be a string", where);
  const auto found = std::find_if(kDtypes.begin(), kDtypes.end(), [&](const DtypeInfo& candidate) {
    return candidate.name == dtype.get_ref<const std::string&>();
  });
  require(found != kDtypes.end(), "{} has the dtype {}; Oryx reads F64, F32, F16, BF16, I64, I32, I16, I8, U8 and BOOL",
          where, excerpt(dtype.get_ref<const std::string&>()));
  entry.tensor.dtype = found->dtype;

  const Json& shape = value["shape"];
  require(shape.is_array() && shape.size() <= kMaxDimensions, "{}: shape must be an array of at most {} sizes", where,
          kMaxDimensions);
  for (const Json& size : shape) {
    const uint64_t dimension = unsigned_value(size, where + ": shape");
    require(dimension <= uint64_t{INT64_MAX}, "{}: the shape is too large or negative", where);
    entry.tensor.shape.push_back(static_cast<int64_t>(dimension));
  }
  const uint64_t bytes = byte_size(entry.tensor.dtype, entry.tensor.shape, where);

  const Json& offsets = value["data_offsets"];
  require(offsets.is_array() && offsets.size() == 2, "{}: data_offsets must be [begin, end]", where);
  entry.begin = unsigned_value(offsets[0], where + ": data_offsets");
  entry.end = unsigned_value(offsets[1], where + ": data_offsets");
  require(entry.begin <= entry.end && entry.end <= data_size,
          "{}: data_offsets [{}, {}] do not lie within the {} bytes of data; the file is damaged or cut short", where,
          entry.begin, entry.end, data_size);
  require(entry.end - entry.begin == bytes, "{}: {} bytes are stored, but its dtype and shape make {}", where,
          entry.end - entry.begin, bytes);
  return entry;
}

}  // namespace

size_t dtype_size(Dtype dtype) {
  return info(dtype).size;
}
const char* dtype_name(Dtype dtype) {
  return info(dtype).name;
}

std::map<std::string, StoredTensor> parse_safetensors(std::span<const std::byte> file, const std::string& source,
                                                      std::map<std::string, std::string>* metadata) {
  uint64_t header_size = 0;
  require(file.size() >= sizeof header_size, "{}: {} bytes are too few for a safetensors file", source, file.size());
  std::memcpy(&header_size, file.data(), sizeof header_size);
  const uint64_t after = file.size() - sizeof header_size;
  require(header_size <= after && header_size <= kMaxHeader,
          "{}: not a safetensors file, or cut short: it announces a header of {} bytes in a file of {}", source,
          header_size, file.size());
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + sizeof header_size, header_size);
  require(header.starts_with('{'), "{}: not a safetensors file: its header is not a JSON object", source);
  const Json parsed = parse_json(header, source + ": header");
  const std::span<const std::byte> data = file.subspan(sizeof header_size + header_size);

  std::vector<Entry> entries;
  for (const auto& [name, value] : parsed.get_ref<const Json::object_t&>()) {
    if (name != kMetadata) {
      entries.push_back(parse_entry(name, value, data.size(), source));
      continue;
    }
    require(value.is_object(), "{}: {} must be an object of strings", source, kMetadata);
    for (const auto& [key, text] : value.get_ref<const Json::object_t&>()) {
      require(text.is_string(), "{}: {} must be an object of strings", source, kMetadata);
      if (metadata) (*metadata)[key] = text.get<std::string>();
    }
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  uint64_t position = 0;
  std::map<std::string, StoredTensor> tensors;
  for (Entry& entry : entries) {
    require(entry.begin == position, "{}: tensor '{}' begins at {}, but the one before it ends at {}: {}", source,
            excerpt(*entry.name), entry.begin, position, entry.begin < position ? "they overlap" : "a hole");
    position = entry.end;
    entry.tensor.data = data.subspan(entry.begin, entry.end - entry.begin);
    tensors.emplace(*entry.name, std::move(entry.tensor));
  }
  require(position == data.size(), "{}: {} bytes of data follow the last tensor", source, data.size() - position);
  return tensors;
}

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) {
  const auto reason = [] { return std::generic_category().message(errno); };
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(descriptor >= 0, "cannot read {}: {}", path.string(), reason());
  struct stat status {};
  const bool known = fstat(descriptor, &status) == 0;
  const size_t size = known && S_ISREG(status.st_mode) ? static_cast<size_t>(status.st_size) : 0;
  void* address = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0) : nullptr;
  const std::string failure = address == MAP_FAILED ? reason() : "";
  close(descriptor);
  require(failure.empty(), "cannot map {}: {}", path.string(), failure);
  require(size > 0, "{}: empty or not a file; expected safetensors", path.string());
  map_ = {static_cast<const std::byte*>(address), size};
  try {
    tensors_ = parse_safetensors(map_, path.string(), &metadata_);
  } catch (...) {
    munmap(address, size);
    throw;
  }
}

SafetensorsReader::SafetensorsReader(SafetensorsReader&& other) noexcept
    : map_(std::exchange(other.map_, {})),
      tensors_(std::exchange(other.tensors_, {})),
      metadata_(std::exchange(other.metadata_, {})) {}

SafetensorsReader::~SafetensorsReader() {
  if (!map_.empty()) munmap(const_cast<std::byte*>(map_.data()), map_.size());
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, StoredTensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  // Put together as text: a JSON object would search all its keys at each insertion.
  const auto quoted = [&](const std::string& text) {
    try {
      return Json(text).dump();
    } catch (const Json::type_error&) {
      input_error("cannot write {}: '{}' is not valid UTF-8", path.string(), excerpt(text));
    }
  };
  std::string header = "{";
  if (!metadata.empty()) {
    std::string members;
    for (const auto& [key, value] : metadata) {
      members += fmt::format("{}{}:{}", members.empty() ? "" : ",", quoted(key), quoted(value));
    }
    header += fmt::format("\"{}\":{{{}}}", kMetadata, members);
  }
  std::set<std::string_view> names;
  uint64_t position = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::string where = fmt::format("cannot write {}: tensor '{}'", path.string(), excerpt(name));
    require(name != kMetadata && names.insert(name).second, "{}: the name is taken", where);
    require(tensor.data.size() == byte_size(tensor.dtype, tensor.shape, where),
            "{} has {} bytes, but its dtype and shape make {}", where, tensor.data.size(),
            byte_size(tensor.dtype, tensor.shape, where));
    header += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
                          header.size() > 1 ? "," : "", quoted(name), dtype_name(tensor.dtype),
                          Json(tensor.shape).dump(), position, position + tensor.data.size());
    position += tensor.data.size();
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  require(header.size() <= kMaxHeader, "cannot write {}: the header would pass the format's limit of {} bytes",
          path.string(), kMaxHeader);

  FileWriter writer(path);
  const uint64_t header_size = header.size();
  writer.write(&header_size, sizeof header_size);
  writer.write(header);
  for (const auto& [name, tensor] : tensors) writer.write(tensor.data.data(), tensor.data.size());
  writer.close();
}

}  // namespace oryx
