#include "cli/demo_eval.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/progress.h"
#include "cli/demo_stage.h"
#include "data/text_file.h"
#include "data/tokenizer.h"
#include "eval/perplexity.h"
#include "eval/recall.h"
#include "generate/engine.h"

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kRecallSeed = 20240607;  // the default of `oryx eval recall`
constexpr const char* kPrompt = "The children ran down to the river, and there they saw";

constexpr const char* kSampleSchedule = "alternate:16";
constexpr SamplingOptions kSampling{.temperature = 0.8, .seed = 7};

struct NamedSchedule {
  std::string name, text;
};

Json spans_of(const MixerSchedule& schedule) {
  Json spans = Json::array();
  for (const Span& s : schedule.common())
    spans.push_back({{"begin", s.begin}, {"end", s.end}, {"mixer", mode_name(s.mode)}});
  return spans;
}

Json task_settings(const char* what, const RecallTask& task, const std::string& schedule, int64_t examples,
                   const Common& common) {
  return {{"what", what},         {"task", task.to_json()}, {"schedule", schedule},
          {"examples", examples}, {"seed", kRecallSeed},    {"dtype", common.dtype}};
}

// Progress of the parts of a stage as one line of its own, instead of a line for each part.
class QuietParts {
 public:
  QuietParts() { Progress::set_quiet(true); }
  QuietParts(const QuietParts&) = delete;
  QuietParts& operator=(const QuietParts&) = delete;
  ~QuietParts() { Progress::set_quiet(false); }
};

// Where attention has its share of a sequence; the recurrence has the rest.
enum class Place { end, start, spread };

std::string place_name(Place place) {
  return place == Place::end ? "end" : place == Place::start ? "start" : "spread";
}

std::string schedule_text(Place place, int64_t length, double fraction) {
  const int64_t share = std::llround(fraction * static_cast<double>(length));
  if (share == 0) return "recurrent";
  if (share == length) return "attention";
  if (place == Place::end) return fmt::format("recurrent:..{0},attention:{0}..", length - share);
  if (place == Place::start) return fmt::format("attention:..{0},recurrent:{0}..", share);
  return fmt::format("random:16:{}:1", fraction);
}

struct Curve {
  int64_t length;
  Place place;
  std::vector<double> fractions;
};

// Accuracy against attention fraction: on longer and longer contexts, and by where attention stands.
Json attention_curves(const LanguageModel& model, RecallTask task, const DemoSizes& sizes, EvaluationCache& cache,
                      const Common& common) {
  task.query_placement = "end";
  const int64_t trained = task.length;
  std::vector<Curve> curves;
  for (const int64_t length : {trained, 2 * trained, sizes.long_length}) {
    const double queries = static_cast<double>(task.pairs) / static_cast<double>(length);
    std::vector<double> fractions{0, queries / 2, queries, 0.1, 0.2, 0.35, 0.5, 0.75, 0.9, 1};
    std::ranges::sort(fractions);
    curves.push_back({length, Place::end, fractions});
  }
  for (const Place place : {Place::start, Place::spread})
    curves.push_back({trained, place, {0, 0.1, 0.25, 0.5, 0.75, 0.9, 1}});
  int64_t points = 0, done = 0;
  for (const Curve& c : curves) points += static_cast<int64_t>(c.fractions.size());
  Progress progress("accuracy against attention fraction", points);
  Json out = Json::array();
  for (const Curve& c : curves) {
    task.length = c.length;
    task.validate();
    Json curve{{"length", c.length}, {"attention_at", place_name(c.place)}, {"points", Json::array()}};
    for (const double fraction : c.fractions) {
      const std::string text = schedule_text(c.place, c.length, fraction);
      Json point{{"schedule", text}};
      point.update(cache.get(task_settings("curve", task, text, sizes.curve_examples, common), [&] {
        const QuietParts quiet;
        return evaluate_recall(model, task, *schedule_policy(ScheduleSpec::parse(text)), sizes.curve_examples,
                               kRecallSeed)
            .to_json();
      }));
      curve["points"].push_back(point);
      progress.update(++done, fmt::format("{} tokens, accuracy {:.3f}", c.length, point["accuracy"].get<double>()));
    }
    out.push_back(curve);
  }
  progress.finish();
  return out;
}

Json sample(const fs::path& writer, int64_t tokens, const Common& common) {
  const LanguageModel model = common.load_model(writer.string());
  const Tokenizer tokenizer = Tokenizer::load(writer);
  const auto ids = tokenizer.encode(kPrompt);
  const ScheduleSpec spec = ScheduleSpec::parse(kSampleSchedule);
  const auto length = static_cast<int64_t>(ids.size());
  Generator generator(model, {ids.begin(), ids.end()}, spec.resolve_open(length + tokens, model.config()), kSampling);
  StreamDecoder decoder(tokenizer);
  Json pieces = Json::array();
  const auto put = [&](const std::string& mixer, const std::string& text, int64_t count) {
    if (pieces.empty() || pieces.back()["mixer"] != mixer)
      pieces.push_back({{"mixer", mixer}, {"text", ""}, {"tokens", 0}});
    Json& piece = pieces.back();
    piece["text"] = piece["text"].get<std::string>() + text;
    piece["tokens"] = piece["tokens"].get<int64_t>() + count;
  };
  Progress progress("sample", tokens);
  std::string mixer = mode_name(Mode::recurrent);
  for (int64_t i = 0; i < tokens; ++i) {
    const GeneratedToken token = generator.next();
    mixer = mode_name(token.mode);
    put(mixer, decoder.push(static_cast<int32_t>(token.id)), 1);
    progress.update(i + 1);
    if (token.id == tokenizer.eos_id()) break;
  }
  put(mixer, decoder.finish(), 0);
  progress.finish();
  return {{"model", writer.string()}, {"parameters", model_info(model.config()).parameters.total},
          {"prompt", kPrompt},        {"prompt_tokens", length},
          {"schedule", spec.text()},  {"temperature", kSampling.temperature},
          {"seed", kSampling.seed},   {"pieces", pieces}};
}

void say_kept(const char* name, const EvaluationCache& cache) {
  if (cache.kept() > 0)
    say(fmt::format("{}: {} of {} results are kept from before", name, cache.kept(), cache.kept() + cache.measured()));
}

}  // namespace

Json evaluate_recall_model(const fs::path& run, const DemoSizes& sizes, const Common& common) {
  const fs::path directory = run / "model";
  const LanguageModel model = common.load_model(directory.string());
  const RecallTask task =
      RecallTask::from_json(load_json(directory / "recall.json"), (directory / "recall.json").string());
  EvaluationCache cache(run);
  const int64_t context = 2 * task.pairs;
  const std::vector<NamedSchedule> schedules{
      {"all in attention", "attention"},
      {"all recurrent", "recurrent"},
      {"context recurrent, queries in attention", fmt::format("recurrent:..{0},attention:{0}..", context)},
      {"context in attention, queries recurrent", fmt::format("attention:..{0},recurrent:{0}..", context)}};
  Json rows = Json::array();
  for (const auto& [name, text] : schedules) {
    const ScheduleSpec spec = ScheduleSpec::parse(text);
    Json row{{"name", name}, {"schedule", text}, {"spans", spans_of(spec.resolve(task.length, model.config()))}};
    row.update(cache.get(task_settings("recall", task, text, sizes.recall_examples, common), [&] {
      return evaluate_recall(model, task, *schedule_policy(spec), sizes.recall_examples, kRecallSeed).to_json();
    }));
    rows.push_back(row);
  }
  Json out{{"model", directory.string()},
           {"parameters", model_info(model.config()).parameters.total},
           {"config", model.config().to_json()},
           {"task", task.to_json()},
           {"schedules", rows},
           {"curves", attention_curves(model, task, sizes, cache, common)}};
  say_kept("recall", cache);
  return out;
}

Json evaluate_text_model(const fs::path& run, const fs::path& valid, const fs::path& writer, const DemoSizes& sizes,
                         const Common& common) {
  const fs::path directory = run / "model";
  const LanguageModel model = common.load_model(directory.string());
  const Tokenizer tokenizer = Tokenizer::load(directory);
  EvaluationCache cache(run);
  std::string text = read_utf8_file(valid);
  if (text.size() > sizes.valid_bytes) text.resize(text.rfind('\n', sizes.valid_bytes) + 1);
  const int64_t context = model.config().max_position_embeddings;
  const std::vector<NamedSchedule> schedules{
      {"attention", "attention"},
      {"recurrent", "recurrent"},
      {"alternating", fmt::format("alternate:{}", std::max<int64_t>(1, context / 16))},
      {"attention for the last tenth", "tail:0.1"}};
  Json rows = Json::array();
  for (const auto& [name, schedule] : schedules) {
    const ScheduleSpec spec = ScheduleSpec::parse(schedule);
    Json row{{"name", name}, {"schedule", schedule}, {"spans", spans_of(spec.resolve(context, model.config()))}};
    const Json settings{{"what", "perplexity"}, {"file", fs::path(valid).filename().string()},
                        {"bytes", text.size()}, {"schedule", schedule},
                        {"context", context},   {"dtype", common.dtype}};
    row.update(cache.get(settings, [&] {
      return evaluate_perplexity(model, tokenizer, text, *schedule_policy(spec), context).to_json();
    }));
    rows.push_back(row);
  }
  const Json settings{{"what", "sample"},
                      {"model", writer.string()},
                      {"prompt", kPrompt},
                      {"schedule", kSampleSchedule},
                      {"temperature", kSampling.temperature},
                      {"seed", kSampling.seed},
                      {"tokens", sizes.sample_tokens},
                      {"dtype", common.dtype}};
  Json out{{"model", directory.string()},
           {"parameters", model_info(model.config()).parameters.total},
           {"config", model.config().to_json()},
           {"context", context},
           {"perplexity", rows},
           {"sample", cache.get(settings, [&] { return sample(writer, sizes.sample_tokens, common); })}};
  say_kept("text", cache);
  return out;
}

}  // namespace oryx::cli
