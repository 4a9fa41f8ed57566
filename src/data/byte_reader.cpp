#include "data/byte_reader.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include "base/error.h"

namespace oryx {
namespace {

constexpr size_t kInput = 1 << 18;
constexpr std::string_view kZstdMagic{"\x28\xb5\x2f\xfd", 4}, kGzipMagic{"\x1f\x8b\x08", 3};

}  // namespace

// step() takes what it can of the input and gives what it can of the output.
class ByteReader::Decoder {
 public:
  struct Progress {
    size_t taken, given;
  };
  Decoder(std::string path, const char* kind) : path_(std::move(path)), kind_(kind) {}
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  virtual ~Decoder() = default;
  // `last`: no input follows this one, which may be empty.
  virtual Progress step(const char* in, size_t in_size, char* out, size_t out_size, bool last) = 0;

 protected:
  [[noreturn]] void fail(std::string_view what) const {
    input_error("cannot unpack {}: {}; it should be a whole {} file", path_, what, kind_);
  }

 private:
  std::string path_;
  const char* kind_;
};

class ByteReader::ZstdDecoder : public Decoder {
 public:
  explicit ZstdDecoder(const std::string& path) : Decoder(path, "Zstandard"), stream_(ZSTD_createDStream()) {
    if (!stream_) fail("out of memory");
  }
  Progress step(const char* in, size_t in_size, char* out, size_t out_size, bool last) override {
    ZSTD_inBuffer input{in, in_size, 0};
    ZSTD_outBuffer output{out, out_size, 0};
    // Without input and with everything given, zstd would begin another frame.
    if (in_size > 0 || remaining_ > 0) {
      remaining_ = ZSTD_decompressStream(stream_.get(), &output, &input);
      if (ZSTD_isError(remaining_)) fail(ZSTD_getErrorName(remaining_));
    }
    if (last && input.pos == in_size && output.pos < out_size && remaining_ > 0) fail("it ends within a frame");
    return {input.pos, output.pos};
  }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  size_t remaining_ = 0;
};

class ByteReader::GzipDecoder : public Decoder {
 public:
  explicit GzipDecoder(const std::string& path) : Decoder(path, "gzip") {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) fail("out of memory");  // 16: gzip's wrapping
  }
  ~GzipDecoder() override { inflateEnd(&stream_); }
  Progress step(const char* in, size_t in_size, char* out, size_t out_size, bool last) override {
    if (ended_) {
      if (in_size == 0) return {0, 0};
      inflateReset(&stream_);  // the next member
      ended_ = false;
    }
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in));
    stream_.avail_in = static_cast<uInt>(in_size);
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = static_cast<uInt>(out_size);
    const int status = inflate(&stream_, Z_NO_FLUSH);
    if (status == Z_STREAM_END) {
      ended_ = true;
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      fail(stream_.msg ? stream_.msg : "it is damaged");
    }
    if (last && !ended_ && stream_.avail_in == 0 && stream_.avail_out > 0) fail("it ends within a member");
    return {in_size - stream_.avail_in, out_size - stream_.avail_out};
  }

 private:
  z_stream stream_{};
  bool ended_ = false;
};

ByteReader::ByteReader(const std::filesystem::path& path, Unpack unpack)
    : path_(path), file_(std::fopen(path.c_str(), "rb")), input_(kInput) {
  require(file_ != nullptr, "cannot read {}: {}", path_.string(), std::generic_category().message(errno));
  if (unpack == Unpack::no || !fill()) return;
  const std::string_view start(input_.data(), end_);
  if (start.starts_with(kZstdMagic)) decoder_ = std::make_unique<ZstdDecoder>(path_.string());
  if (start.starts_with(kGzipMagic)) decoder_ = std::make_unique<GzipDecoder>(path_.string());
}

ByteReader::~ByteReader() = default;

bool ByteReader::fill() {
  begin_ = 0;
  errno = 0;
  end_ = std::fread(input_.data(), 1, input_.size(), file_.get());
  require(end_ > 0 || !std::ferror(file_.get()), "cannot read {}: {}", path_.string(),
          std::generic_category().message(errno));
  hash_.update(input_.data(), end_);
  file_bytes_ += static_cast<int64_t>(end_);
  return end_ > 0;
}

size_t ByteReader::read(char* out, size_t bytes) {
  for (;;) {
    const bool last = begin_ == end_ && !fill();
    size_t taken = std::min(bytes, end_ - begin_), given = taken;
    if (!decoder_) {
      std::memcpy(out, input_.data() + begin_, taken);
    } else {
      const auto progress = decoder_->step(input_.data() + begin_, end_ - begin_, out, bytes, last);
      taken = progress.taken, given = progress.given;
    }
    begin_ += taken;
    if (given > 0 || last) return given;
  }
}

std::string ByteReader::sha256() {
  while (fill()) {
  }
  return hash_.hex();
}

}  // namespace oryx
