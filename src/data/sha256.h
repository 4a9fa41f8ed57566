#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>

struct evp_md_ctx_st;

namespace oryx {

// SHA-256 of bytes as they come (OpenSSL's), to be compared with what `sha256sum` prints.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  ~Sha256();
  void update(const void* data, size_t bytes);
  std::string hex();  // 64 digits; ends the computation

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string sha256_of_file(const std::filesystem::path& path);  // InputError when it cannot be read

}  // namespace oryx
