#include "data/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <vector>

#include "base/error.h"
#include "data/byte_reader.h"

namespace oryx {

void Sha256::Free::operator()(evp_md_ctx_st* context) const {
  EVP_MD_CTX_free(context);
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  require(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1, "cannot compute SHA-256");
}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::update(const void* data, size_t bytes) {
  require(EVP_DigestUpdate(context_.get(), data, bytes) == 1, "cannot compute SHA-256");
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  require(EVP_DigestFinal_ex(context_.get(), digest, &size) == 1, "cannot compute SHA-256");
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256_of_file(const std::filesystem::path& path) {
  ByteReader reader(path, ByteReader::Unpack::no);
  std::vector<char> buffer(1 << 18);
  while (reader.read(buffer.data(), buffer.size()) > 0) {
  }
  return reader.sha256();
}

}  // namespace oryx
