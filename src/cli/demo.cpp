#include "cli/demo_eval.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "cli/demo_page.h"
#include "cli/demo_stage.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

struct DemoOptions {
  std::string out, project = ORYX_SOURCE_DIR;
  bool quick = false;
};

// Enough to run every part, not to learn anything.
DemoSizes quick_sizes() {
  return {.recall_examples = 16, .long_length = 512, .curve_examples = 2, .sample_tokens = 24, .valid_bytes = 4000};
}
const std::vector<std::string> kQuickRecall{"train.tokens=40960", "train.eval_every=5", "train.eval_tokens=4096",
                                            "train.log_every=2", "train.checkpoint_every=5"};
const std::vector<std::string> kQuickText{"train.tokens=12288",
                                          "train.batch_tokens=2048",
                                          "train.eval_every=3",
                                          "train.eval_tokens=512",
                                          "train.log_every=1",
                                          "data.vocab=512",
                                          "data.context=64",
                                          "model.max_position_embeddings=64",
                                          "model.hidden_size=64",
                                          "model.num_attention_heads=2",
                                          "model.num_key_value_heads=2",
                                          "model.intermediate_size=128"};

Recipe load_recipe(const fs::path& project, const char* name, const std::vector<std::string>& overrides) {
  const fs::path path = project / "configs" / name;
  require(fs::exists(path), "{} is missing; give the project's folder with --project", path.string());
  Json json = load_toml(path);
  for (const std::string& assignment : overrides) apply_override(json, assignment);
  return Recipe::from_json(json, path.string(), path.parent_path());
}

bool color_terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr && term != nullptr &&
         std::string(term) != "dumb";
}

void run(const DemoOptions& options, const Common& common) {
  const auto begin = std::chrono::steady_clock::now();
  const fs::path project = fs::absolute(options.project).lexically_normal();
  const fs::path out = !options.out.empty() ? options.out : options.quick ? "out/demo-quick" : "out/demo";
  const DemoSizes sizes = options.quick ? quick_sizes() : DemoSizes{};
  const std::vector<std::string> none;
  const Recipe recall_recipe = load_recipe(project, "demo-recall.toml", options.quick ? kQuickRecall : none);
  const Recipe text_recipe = load_recipe(project, "demo-text.toml", options.quick ? kQuickText : none);
  require(!text_recipe.data.valid.empty(), "configs/demo-text.toml needs data.valid");

  const fs::path writer = project / "models" / "oryx-gdn-31m";
  require(fs::exists(writer / "model.safetensors"), "{} is missing; give the project's folder with --project",
          (writer / "model.safetensors").string());

  const auto heading = [](const std::string& text) { say("\n== " + text); };
  const auto print = [&](const std::string& text) {
    if (common.json) return;
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  };

  heading("1/3 Associative recall");
  Json recall_training = train_stage("recall", recall_recipe, out / "recall", common.torch_device());
  Json recall = evaluate_recall_model(out / "recall", sizes, common);
  recall["training"] = std::move(recall_training);
  recall["mixing_chunk"] = recall_recipe.mixing.chunk;
  print(recall_summary(recall));

  heading("2/3 English text");
  Json text_training = train_stage("text", text_recipe, out / "text", common.torch_device());
  Json text = evaluate_text_model(out / "text", text_recipe.data.valid.front(), writer, sizes, common);
  text["training"] = std::move(text_training);
  print(text_summary(text, color_terminal()));

  heading("3/3 Report");
  const Json results{{"oryx", ORYX_VERSION},
                     {"quick", options.quick},
                     {"machine",
                      {{"processor", processor()},
                       {"cores", std::thread::hardware_concurrency()},
                       {"threads", at::get_num_threads()},
                       {"device", common.device}}},
                     {"recall", recall},
                     {"text", text}};
  write_file_atomically(out / "results.json", results.dump(1) + "\n");
  write_file_atomically(out / "index.html", demo_page(results));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (common.json) return Common::print(results);
  print(fmt::format("\nDone in {}. The report: {}\n", human_duration(seconds),
                    fs::absolute(out / "index.html").string()));
}

}  // namespace

void add_demo(CLI::App& app, Common& common) {
  auto options = std::make_shared<DemoOptions>();
  CLI::App* command = app.add_subcommand("demo", "Train two small models and show what switching mixers does");
  command->add_option("--out", options->out, "Where models, figures and the report go (default: out/demo)");
  command->add_option("--project", options->project, "The project's folder, with configs/ and data/")
      ->capture_default_str();
  command->add_flag("--quick", options->quick, "Every part on a tiny budget, into out/demo-quick; learns nothing");
  command->callback([options, &common] { run(*options, common); });
}

}  // namespace oryx::cli
