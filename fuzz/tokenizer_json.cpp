#include "data/tokenizer_json.h"

#include "base/error.h"
#include "check.h"
#include "data/word_cache.h"

using namespace oryx;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto model = parse_tokenizer_json({reinterpret_cast<const char*>(data), size}, "tokenizer.json");
    const auto count = static_cast<int32_t>(model->surfaces().size());
    check(model->eos_id() >= 0 && model->eos_id() < count && model->bos_id() >= 0 && model->bos_id() < count,
          "bos and eos are tokens");
    for (const SpecialTokens special : {SpecialTokens::as_text, SpecialTokens::as_ids}) {
      WordCache words;
      std::vector<int32_t> ids;
      // Short: a pattern may take exponential time, and that is no finding.
      model->encode("a  b1\n\xff\u00e9", special, words, ids);
      for (const int32_t id : ids) check(id >= 0 && id < count, "an id is a token");
    }
  } catch (const InputError& error) {
    check_message(error.what());
  }
  return 0;
}
