#include "cli/demo_stage.h"

#include <csignal>
#include <cstdio>
#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "cli/options.h"
#include "train/metrics.h"
#include "train/trainer.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "stage.json";  // the recipe of a run, and whether it is finished

// What a file holds, or null when it is missing or damaged: then the work is done again.
Json load_or_null(const fs::path& path) {
  if (!fs::exists(path)) return nullptr;
  try {
    return load_json(path);
  } catch (const InputError&) {
    return nullptr;
  }
}

void save(const fs::path& path, const Json& json) {
  write_file_atomically(path, json.dump(1) + "\n");
}

// Removes what training wrote, and nothing else that may lie there.
void clear_run(const fs::path& run) {
  for (const char* name : {"checkpoints", "model", "metrics.jsonl", "tensorboard", "recipe.json", "lock",
                           "tokenizer.model", "evaluations.json", kMarker})
    fs::remove_all(run / name);
}

uint64_t fnv1a(uint64_t hash, const std::string& bytes) {
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace

void say(const std::string& line) {
  std::fprintf(stderr, "%s\n", line.c_str());
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.find(": "), line.size() - 2) + 2);
  return "";
}

Json train_stage(const std::string& name, const Recipe& recipe, const fs::path& run, at::Device device) {
  const Json resolved = recipe.to_json();
  const Json before = load_or_null(run / kMarker);
  const bool same = before.is_object() && before.value("recipe", Json()) == resolved;
  if (same && before.value("finished", false) && fs::exists(run / "model" / "config.json")) {
    say(fmt::format("{}: already trained, {} is used as it is", name, (run / "model").string()));
    return read_metrics(run);
  }
  if (!same) {
    require(before.is_object() || !fs::exists(run / "model"),
            "{} holds a model that the demo did not make; give another folder with --out", run.string());
    if (before.is_object()) say(fmt::format("{}: the recipe is another one than before, training starts anew", name));
    clear_run(run);
    fs::create_directories(run);
    save(run / kMarker, {{"recipe", resolved}, {"finished", false}});
  } else {
    say(fmt::format("{}: training goes on from its last checkpoint", name));
  }
  const TrainResult result = train(recipe, {run, /*resume=*/true, device});
  if (result.stopped_by == SIGINT) throw Interrupted{};
  if (result.stopped_by != 0) throw std::runtime_error("stopped by a signal; the same command goes on from here");
  save(run / kMarker, {{"recipe", resolved}, {"finished", true}});
  return read_metrics(run);
}

EvaluationCache::EvaluationCache(const fs::path& run) : path_(run / "evaluations.json") {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.model"})
    if (fs::exists(run / "model" / name)) hash = fnv1a(hash, read_text_file(run / "model" / name));
  const std::string model = fmt::format("{:016x}", hash);
  content_ = load_or_null(path_);
  if (!content_.is_object() || content_.value("model", "") != model || !content_.contains("results"))
    content_ = {{"model", model}, {"results", Json::array()}};
}

Json EvaluationCache::get(const Json& settings, const std::function<Json()>& measure) {
  for (const Json& entry : content_["results"])
    if (entry.value("settings", Json()) == settings) {
      ++kept_;
      return entry.at("result");
    }
  Json result = measure();
  ++measured_;
  content_["results"].push_back({{"settings", settings}, {"result", result}});
  save(path_, content_);
  return result;
}

}  // namespace oryx::cli
