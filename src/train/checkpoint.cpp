#include "train/checkpoint.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/safetensors.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> checkpoints(const fs::path& run) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", ignored))
    if (entry.path().filename().string().starts_with("step-") && fs::exists(entry.path() / "trainer.json"))
      found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

void save_checkpoint(const fs::path& run, const LanguageModel& model, const AdamW& optimizer, const TrainerState& state,
                     int64_t keep) {
  StagedDirectory staged(run / "checkpoints" / fmt::format("step-{:09}", state.step));
  model.save(staged.path(), int64_t{4} << 30, /*full_precision=*/true);
  std::vector<std::pair<std::string, StoredTensor>> tensors;
  std::vector<at::Tensor> alive;
  for (const auto& [name, tensor] : optimizer.state()) {
    alive.push_back(tensor.to(at::kCPU).contiguous());
    const at::Tensor& x = alive.back();
    tensors.emplace_back(
        name,
        StoredTensor{Dtype::f32, x.sizes().vec(), {static_cast<const std::byte*>(x.const_data_ptr()), x.nbytes()}});
  }
  write_safetensors(staged.path() / "optimizer.safetensors", tensors);
  const Json json{{"step", state.step}, {"tokens", state.tokens}, {"recipe", state.recipe}};
  write_file_atomically(staged.path() / "trainer.json", json.dump(2) + "\n");
  staged.commit();
  auto all = checkpoints(run);
  for (int64_t i = 0; i + keep < static_cast<int64_t>(all.size()); ++i) fs::remove_all(all[i]);
}

std::optional<fs::path> newest_checkpoint(const fs::path& run) {
  const auto all = checkpoints(run);
  return all.empty() ? std::nullopt : std::optional(all.back());
}

TrainerState load_checkpoint(const fs::path& checkpoint, LanguageModel& model, AdamW& optimizer) {
  const LanguageModel saved = LanguageModel::load(checkpoint);
  require(saved.config() == model.config(), "{}: the checkpoint's model is not the recipe's", checkpoint.string());
  for (const auto& [name, w] : saved.weights()) model.set_weight(name, w);
  const SafetensorsReader reader(checkpoint / "optimizer.safetensors");
  std::map<std::string, at::Tensor> state;
  for (const auto& [name, stored] : reader.tensors()) {
    require(stored.dtype == Dtype::f32, "{}: optimizer tensor '{}' must be F32", checkpoint.string(), name);
    at::Tensor x = at::empty(stored.shape, at::kFloat);
    if (!stored.data.empty()) std::memcpy(x.mutable_data_ptr(), stored.data.data(), stored.data.size());
    state.emplace(name, x);
  }
  optimizer.load_state(state);
  const Json json = load_json(checkpoint / "trainer.json");
  Fields fields(json, (checkpoint / "trainer.json").string());
  TrainerState out{fields.integer("step"), fields.integer("tokens"), fields.raw("recipe")};
  fields.finish();
  return out;
}

void check_same_recipe(const Json& before, const Json& now, const fs::path& checkpoint) {
  static const std::set<std::string> free_keys{"log_every", "eval_every", "checkpoint_every", "eval_tokens", "keep"};
  for (const auto& [table, values] : now.items())
    for (const auto& [key, value] : values.items()) {
      if (free_keys.count(key)) continue;
      const bool known = before.contains(table) && before[table].contains(key);
      require(
          known && before[table][key] == value,
          "{} was trained with {}.{} = {}, but the recipe says {}; resume with the recipe it began with, or train into "
          "another --out",
          checkpoint.string(), table, key, known ? before[table][key].dump() : "nothing", value.dump());
    }
}

}  // namespace oryx
