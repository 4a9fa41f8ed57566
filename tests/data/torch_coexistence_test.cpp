#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "data/text_file.h"
#include "data/tokenizer.h"
#include "temporary_directory.h"

extern "C" unsigned char FLAGS_minloglevel[256];

namespace oryx {
namespace {

// libsentencepiece and LibTorch's libraries export some symbols of the same name (src/data/sentencepiece_flag.cpp), and
// programs of ours load both.
TEST(TorchCoexistence, SharedSymbolIsTheProgramsOwn) {
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "FLAGS_minloglevel"), FLAGS_minloglevel);
  // libsentencepiece put its object there, and not over libc10's variables.
  EXPECT_FALSE(std::all_of(FLAGS_minloglevel, FLAGS_minloglevel + 32, [](unsigned char byte) { return byte == 0; }));
  void* c10 = dlopen("libc10.so", RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(c10, nullptr) << dlerror();
  const auto* flag = static_cast<const unsigned char*>(dlsym(c10, "FLAGS_minloglevel"));
  ASSERT_NE(flag, nullptr);
  EXPECT_NE(flag, FLAGS_minloglevel);
  EXPECT_EQ(std::count(flag, flag + 5, 0), 5) << "the int and the byte behind it are zero in a fresh program";
}

TEST(TorchCoexistence, SentencePieceTrainsLoadsAndEncodesBesideTorch) {
  EXPECT_EQ(at::mm(at::ones({8, 4}), at::ones({4, 8})).sum().item<float>(), 256.0f);
  const TemporaryDirectory directory;
  const auto path = directory.path() / "tokenizer.model";
  const std::string book = ORYX_SOURCE_DIR "/data/books/valid.txt.zst";
  Tokenizer::train({book}, 600, path);
  const Tokenizer tokenizer = Tokenizer::load(path);
  const std::string text = read_utf8_file(book);
  EXPECT_TRUE(tokenizer.decode(tokenizer.encode(text)) == text);
  EXPECT_EQ(at::ones({3}).sum().item<float>(), 3.0f);
}

}  // namespace
}  // namespace oryx
