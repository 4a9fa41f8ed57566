#include "train/comparison.h"
#include "base/error.h"
#include "check.h"

using namespace oryx;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const Json json = parse_toml({reinterpret_cast<const char*>(data), size}, "c.toml");
    const Comparison comparison = Comparison::from_json(json, "c.toml", "/base");
    check(!comparison.models.empty() && !comparison.seeds.empty(), "there is something to compare");
    for (const auto& [name, recipes] : comparison.models) {
      check(!name.empty() && name.find('/') == std::string::npos, "a name is that of a folder");
      check(recipes.size() == comparison.seeds.size(), "each seed has its recipe");
      const Json first = comparison.models.front().recipes.front().to_json();
      check(recipes.front().to_json()["data"] == first["data"], "all models have the same data");
      check(recipes.front().train.tokens == first["train"]["tokens"], "all models have the same budget");
    }
  } catch (const InputError& error) {
    check_message(error.what());
  }
  return 0;
}
