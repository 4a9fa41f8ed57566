#include "model/config.h"

#include "base/error.h"
#include "check.h"

using namespace oryx;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const ModelConfig config = ModelConfig::from_json(parse_json(text, "config.json"), "config.json");
    const std::string written = config.to_json().dump();
    check(ModelConfig::from_json(parse_json(written, "written"), "written") == config, "what is written reads back");
    if (config.num_hidden_layers > 64) return 0;  // slow, and nothing new
    const ModelInfo info = model_info(config);
    const auto& p = info.parameters;
    check(p.embedding > 0 && p.shared > 0 && p.attention >= 0 && p.recurrent >= 0, "counts do not overflow");
    check(p.total == p.embedding + p.shared + p.attention + p.recurrent, "the parts make the total");
    check(info.cache_bytes_per_token >= 0 && info.state_bytes >= 0, "bytes do not overflow");
  } catch (const InputError& error) {
    check_message(error.what());
  }
  return 0;
}
