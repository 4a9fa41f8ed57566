#include "train/metrics.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "base/error.h"
#include "base/files.h"

namespace oryx {

MetricsLog::MetricsLog(const std::filesystem::path& run, int64_t last_step)
    : run_(run), path_(run / "metrics.jsonl"), last_step_(last_step) {
  std::string kept;
  if (std::filesystem::exists(path_)) {
    std::istringstream lines(read_text_file(path_));
    for (std::string line; std::getline(lines, line);) {
      const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (json.is_object() && json.value("step", int64_t{0}) <= last_step) kept += line + "\n";
    }
  }
  write_file_atomically(path_, kept);
  file_ = std::fopen(path_.c_str(), "a");
  require(file_ != nullptr, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

MetricsLog::~MetricsLog() {
  std::fclose(file_);
}

void MetricsLog::write(const Json& line) {
  const std::string text = line.dump() + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file_) == text.size() && std::fflush(file_) == 0;
  require(written, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
  std::vector<std::pair<std::string, double>> scalars;
  for (const auto& [key, value] : line.items()) {
    if (value.is_number() && key != "step" && key != "tokens")
      scalars.emplace_back("train/" + key, value.get<double>());
    if (!value.is_object()) continue;
    for (const auto& [name, number] : value.items())
      if (number.is_number()) scalars.emplace_back(fmt::format("{}/{}", key, name), number.get<double>());
  }
  if (!events_) events_.emplace(run_ / "tensorboard", last_step_ + 1);
  events_->scalars(line.at("step").get<int64_t>(), scalars);
}

Json read_metrics(const std::filesystem::path& run) {
  Json loss = Json::array(), validation = Json::array();
  double seconds = 0;
  int64_t tokens = 0, steps = 0;
  std::istringstream lines(read_text_file(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json entry = parse_json(line, (run / "metrics.jsonl").string());
    const int64_t at = entry.at("tokens");
    if (entry.contains("val_loss")) {
      Json point{{"tokens", at}};
      point.update(entry["val_loss"]);
      validation.push_back(point);
      continue;
    }
    if (!entry.contains("loss")) continue;  // a skipped step or an outlier
    loss.push_back({{"tokens", at}, {"loss", entry.at("loss")}});
    seconds += static_cast<double>(at - tokens) / entry.at("tokens_per_s").get<double>();
    tokens = at, steps = entry.at("step");
  }
  return {{"tokens", tokens},   {"steps", steps},
          {"seconds", seconds}, {"tokens_per_s", static_cast<double>(tokens) / std::max(seconds, 1e-9)},
          {"loss", loss},       {"validation", validation}};
}

}  // namespace oryx
