#include "train/checkpoint.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "base/safetensors.h"
#include "train/checksums.h"
#include "train/recipe.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

constexpr int64_t kShardBytes = int64_t{4} << 30;

std::string directory_name(int64_t step) {
  return fmt::format("step-{:09}", step);
}

// Oldest first.
std::vector<fs::path> checkpoints(const fs::path& run) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", ignored))
    if (entry.path().filename().string().starts_with("step-")) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

// Takes the name away first, so that a checkpoint is never half there.
void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path aside = checkpoint.parent_path() / ("." + checkpoint.filename().string() + ".tmp-removed");
  std::error_code error;
  fs::remove_all(aside, error);
  fs::rename(checkpoint, aside, error);
  if (!error) fs::remove_all(aside, error);
  if (error) Progress::say(fmt::format("cannot remove {}: {}", checkpoint.string(), error.message()));
}

void link_best(const fs::path& run, int64_t step) {
  const fs::path link = run / "checkpoints" / "best", fresh = run / "checkpoints" / ".best.tmp-link";
  std::error_code error;
  fs::remove(fresh, error);
  fs::create_directory_symlink(directory_name(step), fresh, error);
  if (!error) fs::rename(fresh, link, error);
  if (error) Progress::say(fmt::format("cannot write the link {}: {}", link.string(), error.message()));
}

void write_tensors(const fs::path& path, const NamedTensors& tensors) {
  std::vector<std::pair<std::string, StoredTensor>> stored;
  for (const auto& [name, x] : tensors) {
    const std::span bytes(static_cast<const std::byte*>(x.const_data_ptr()), x.nbytes());
    stored.emplace_back(name, StoredTensor{Dtype::f32, x.sizes().vec(), bytes});
  }
  write_safetensors(path, stored);
}

std::map<std::string, at::Tensor> read_tensors(const fs::path& path) {
  const SafetensorsReader reader(path);
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, stored] : reader.tensors()) {
    require(stored.dtype == Dtype::f32, "{}: tensor '{}' must be F32", path.string(), name);
    at::Tensor x = at::empty(stored.shape, at::kFloat);
    if (!stored.data.empty()) std::memcpy(x.mutable_data_ptr(), stored.data.data(), stored.data.size());
    tensors.emplace(name, x);
  }
  return tensors;
}

// InputError naming the first key in which two resolved recipes differ, but for those that change no result.
void check_same_recipe(const Json& written, const Json& now, const fs::path& checkpoint) {
  static const std::set<std::string> free_keys{"train.log_every",   "train.eval_every", "train.checkpoint_every",
                                               "train.eval_tokens", "train.keep",       "train.nonfinite_limit",
                                               "train.recompute"};
  if (const auto other = Recipe::difference(written, checkpoint.string(), now, free_keys))
    input_error(
        "{} was trained with {} = {}, but the recipe says {}; resume with the recipe it began with, or train into "
        "another --out",
        checkpoint.string(), other->key, other->before.dump(), other->now.dump());
}

}  // namespace

Json TrainerState::to_json() const {
  return {{"step", step},           {"tokens", tokens}, {"best_loss", best_loss ? Json(*best_loss) : Json()},
          {"best_step", best_step}, {"guard", guard},   {"recipe", recipe}};
}

TrainerState TrainerState::from_json(const Json& json, const std::string& source) {
  Fields fields(json, source);
  TrainerState state;
  state.step = fields.integer("step");
  state.tokens = fields.integer("tokens");
  if (!fields.raw("best_loss").is_null()) state.best_loss = fields.number("best_loss");
  state.best_step = fields.integer("best_step");
  state.guard = fields.raw("guard");
  state.recipe = fields.raw("recipe");
  fields.finish();
  return state;
}

CheckpointWriter::CheckpointWriter(fs::path run, int64_t keep) : run_(std::move(run)), keep_(keep) {}

CheckpointWriter::~CheckpointWriter() {
  if (writing_.valid()) writing_.wait();
}

void CheckpointWriter::save(const LanguageModel& model, const Optimizer& optimizer, TrainerState state,
                            std::function<void(const fs::path&)> extras) {
  wait();
  NamedTensors moments = optimizer.state();
  // The thread does no tensor arithmetic: it would bring a second pool of threads to life.
  writing_ =
      std::async(std::launch::async, [run = run_, keep = keep_, copy = model.snapshot(), moments = std::move(moments),
                                      state = std::move(state), extras = std::move(extras)] {
        StagedDirectory staged(run / "checkpoints" / directory_name(state.step));
        copy.save(staged.path(), kShardBytes, /*full_precision=*/true);
        write_tensors(staged.path() / "optimizer.safetensors", moments);
        write_file_atomically(staged.path() / "trainer.json", state.to_json().dump(2) + "\n");
        if (extras) extras(staged.path());
        write_checksums(staged.path());
        staged.commit();
        if (state.best_loss && fs::exists(run / "checkpoints" / directory_name(state.best_step)))
          link_best(run, state.best_step);
        const auto all = checkpoints(run);
        for (int64_t i = 0; i + keep < static_cast<int64_t>(all.size()); ++i)
          if (!state.best_loss || all[i].filename() != directory_name(state.best_step)) remove_checkpoint(all[i]);
      });
}

void CheckpointWriter::check() {
  if (writing_.valid() && writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) writing_.get();
}

void CheckpointWriter::wait() {
  if (writing_.valid()) writing_.get();
}

std::optional<fs::path> newest_checkpoint(const fs::path& run) {
  const auto all = checkpoints(run);
  return all.empty() ? std::nullopt : std::optional(all.back());
}

void remove_unfinished(const fs::path& run) {
  for (const fs::path& directory : {run, run / "checkpoints"}) {
    std::error_code ignored;
    std::vector<fs::path> unfinished;
    for (const auto& entry : fs::directory_iterator(directory, ignored)) {
      const std::string name = entry.path().filename().string();
      // "-old" may be the only copy of what was being replaced (StagedDirectory).
      if (name.starts_with('.') && name.find(".tmp-") != std::string::npos && !name.ends_with("-old"))
        unfinished.push_back(entry.path());
    }
    for (const fs::path& path : unfinished) fs::remove_all(path, ignored);
  }
}

std::optional<TrainerState> load_newest_checkpoint(const fs::path& run, const Json& recipe, LanguageModel& model,
                                                   Optimizer& optimizer) {
  const auto all = checkpoints(run);
  std::vector<std::pair<fs::path, std::string>> damaged;
  for (auto checkpoint = all.rbegin(); checkpoint != all.rend(); ++checkpoint) {
    if (const auto damage = find_damage(*checkpoint)) {
      damaged.emplace_back(*checkpoint, *damage);
      continue;
    }
    const fs::path file = *checkpoint / "trainer.json";
    const TrainerState state = TrainerState::from_json(load_json(file), file.string());
    check_same_recipe(state.recipe, recipe, *checkpoint);
    const LanguageModel saved = LanguageModel::load(*checkpoint);
    require(saved.config() == model.config(), "{}: the checkpoint's model is not the recipe's", checkpoint->string());
    for (const auto& [name, w] : saved.weights()) model.set_weight(name, w);
    optimizer.load_state(read_tensors(*checkpoint / "optimizer.safetensors"));
    for (const auto& [path, damage] : damaged) {
      Progress::say(fmt::format("{} is damaged and was put aside: {}", path.string(), damage));
      const fs::path aside = path.parent_path() / ("damaged-" + path.filename().string());
      fs::remove_all(aside);
      fs::rename(path, aside);
    }
    return state;
  }
  require(damaged.empty(), "no checkpoint of {} is whole: {}: {}; restore one from a copy, or train into another --out",
          run.string(), damaged.empty() ? "" : damaged.front().first.filename().string(),
          damaged.empty() ? "" : damaged.front().second);
  return std::nullopt;
}

}  // namespace oryx
