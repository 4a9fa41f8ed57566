#include "train/recipe.h"
#include "base/error.h"
#include "base/json.h"
#include "check.h"

using namespace oryx;

// The first line is an override (--set), the rest a recipe.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line_end = text.find('\n');
  const std::string_view assignment = text.substr(0, line_end);
  Json recipe = Json::object();
  try {
    recipe = parse_toml(line_end == std::string_view::npos ? "" : text.substr(line_end + 1), "recipe.toml");
    check(recipe.is_object(), "a recipe is an object");
  } catch (const InputError& error) {
    check_message(error.what());
  }
  try {
    apply_override(recipe, assignment);
  } catch (const InputError& error) {
    check_message(error.what());
  }
  // Everything that was read can be written into trainer.json.
  (void)recipe.dump();
  try {
    const Recipe read = Recipe::from_json(recipe, "recipe.toml", "/base");
    check(read.steps() > 0, "a recipe has steps");
    (void)read.to_json().dump();
  } catch (const InputError& error) {
    check_message(error.what());
  }
  return 0;
}
