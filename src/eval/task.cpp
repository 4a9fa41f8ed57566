#include "eval/task.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kKinds{"multiple_choice", "completion",    "retrieval",    "synthetic",
                                      "perplexity",      "repeated_text", "position_loss"};

const std::vector<std::string>& metrics_of(TaskKind kind) {
  static const std::vector<std::string> kChoice{"acc", "acc_norm"}, kCompletion{"acc", "perplexity"},
      kGenerated{"contains", "exact_match", "f1", "found"},
      kText{"word_perplexity", "byte_perplexity", "bits_per_byte"}, kRepeated{"first_nats", "repeated_nats"},
      kPosition{"nats"};
  switch (kind) {
    case TaskKind::multiple_choice:
      return kChoice;
    case TaskKind::completion:
      return kCompletion;
    case TaskKind::retrieval:
    case TaskKind::synthetic:
      return kGenerated;
    case TaskKind::perplexity:
      return kText;
    case TaskKind::repeated_text:
      return kRepeated;
    default:
      return kPosition;
  }
}

// `text` with each {name} replaced by what `member` gives for it.
template <typename Member>
std::string filled(const std::string& text, Member&& member) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t open = text.find('{', at), close = text.find('}', open);
    out += text.substr(at, open - at);
    if (close == std::string::npos) return out;
    out += member(text.substr(open + 1, close - open - 1));
    at = close + 1;
  }
}

std::vector<RegexReplacer> read_substitutions(const Json& list, const std::string& where) {
  std::vector<RegexReplacer> out;
  for (const Json& pair : list) {
    require(pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string(),
            "{}: 'substitute' must be a list of [pattern, replacement]", where);
    out.emplace_back(pair[0].get<std::string>(), pair[1].get<std::string>(), where + ": 'substitute'");
  }
  return out;
}

}  // namespace

const char* kind_name(TaskKind kind) {
  return kKinds[static_cast<size_t>(kind)].c_str();
}

std::string Task::substituted(std::string text) const {
  for (const RegexReplacer& substitution : substitutions) text = substitution.replace(text);
  return text;
}

void Task::check(const Example& example) const {
  require(scores_choices() ? !example.choices.empty() : !example.answers.empty(),
          "{}: task '{}' needs {}, which this example does not have", example.where, name,
          scores_choices() ? "'choices' and 'answer'" : "'answers'");
}

Prompt Task::prompt(const Example& example, int64_t choice) const {
  const auto member = [&](const std::string& key) -> std::string {
    std::string text;
    if (key == "context") {
      text = example.context;
    } else if (key == "question") {
      text = example.question;
    } else if (key == "choice") {
      text = example.choices.at(choice < 0 ? example.answer : choice);
    } else if (key == "answer") {
      text = example.answers.at(0);
    } else if (key == "continuation") {
      text = example.continuation;
    } else {
      require(example.fields.contains(key) && example.fields[key].is_string(),
              "{}: task '{}' needs the text '{}', which this example does not have", example.where, name, key);
      text = example.fields[key].get<std::string>();
    }
    return substituted(std::move(text));
  };
  return {filled(context, member), filled(question, member), filled(answer, member)};
}

std::string Task::header(const std::vector<const Example*>& shots) const {
  std::string text = description;
  for (const Example* shot : shots) {
    const Prompt p = prompt(*shot);
    text += p.before() + p.continuation + shot_separator;
  }
  return text;
}

Task load_task(const fs::path& path) {
  const Json json = load_toml(path);
  Fields fields(json, path.string());
  Task task;
  task.name = path.stem().string();
  const std::string kind = fields.choice("kind", kKinds);
  task.kind = static_cast<TaskKind>(std::ranges::find(kKinds, kind) - kKinds.begin());
  task.group = fields.string("group", "");
  task.about = fields.string("about", "");
  const std::string data = fields.string("data", "");
  if (!data.empty()) task.data = path.parent_path() / data;
  const auto& known = metrics_of(task.kind);
  task.metrics = fields.strings("metrics", known);
  require(!task.metrics.empty(), "{}: 'metrics' is empty; leave it out to have all", path.string());
  for (const std::string& metric : task.metrics)
    require(std::ranges::find(known, metric) != known.end(), "{}: a task of kind '{}' has no metric '{}'{}",
            path.string(), kind, metric, did_you_mean(metric, known));
  task.substitutions = read_substitutions(fields.raw("substitute"), path.string());
  task.synthetic = fields.raw("synthetic");
  Fields prompt = fields.table("prompt");
  task.description = prompt.string("description", "");
  task.context = prompt.string("context", "");
  task.question = prompt.string("question", "");
  task.answer = prompt.string("answer", task.generates() ? " {answer}" : "");
  task.shot_separator = prompt.string("shot_separator", task.shot_separator);
  task.until = prompt.strings("until", std::vector<std::string>{"\n"});
  task.max_tokens = prompt.integer("max_tokens", 48);
  prompt.finish();
  fields.finish();
  require(task.reads_text() || task.generates() || !task.answer.empty(),
          "{}: [prompt] 'answer' is what is scored; give it a template such as \" {{choice}}\"", path.string());
  require(task.max_tokens >= 1, "{}: [prompt] 'max_tokens' must be at least 1, but is {}", path.string(),
          task.max_tokens);
  return task;
}

std::vector<Task> all_tasks(const fs::path& directory) {
  std::error_code error;
  std::vector<Task> tasks;
  for (const auto& entry : fs::directory_iterator(directory, error))
    if (entry.path().extension() == ".toml") tasks.push_back(load_task(entry.path()));
  require(!error && !tasks.empty(), "{}: holds no task (*.toml); give the folder of tasks with --tasks",
          directory.string());
  std::ranges::sort(tasks, {}, [](const Task& task) { return std::pair(task.group, task.name); });
  return tasks;
}

std::vector<Task> find_tasks(const std::vector<std::string>& names, const fs::path& directory) {
  std::vector<Task> known, found;
  for (const std::string& name : names) {
    if (fs::path(name).extension() == ".toml") {
      found.push_back(load_task(name));
      continue;
    }
    if (known.empty()) known = all_tasks(directory);
    const size_t before = found.size();
    std::vector<std::string> all;
    for (const Task& task : known) {
      if (task.name == name || task.group == name) found.push_back(task);
      all.insert(all.end(), {task.name, task.group});
    }
    require(found.size() > before, "there is no task '{}'{}; see oryx eval list", name, did_you_mean(name, all));
  }
  return found;
}

}  // namespace oryx
