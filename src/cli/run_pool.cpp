#include "cli/run_pool.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <system_error>
#include <thread>

#include "base/error.h"
#include "base/progress.h"
#include "cli/compare_results.h"
#include "train/mixing.h"
#include "train/stop_signal.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): unistd.h has it for some C libraries only

namespace oryx::cli {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

struct Run {
  std::string name;  // MODEL:SEED
  fs::path folder;
  int64_t tokens, passes;
  size_t gpu = 0;  // while it is going on
};

std::string run_name(const std::string& model, int64_t seed) {
  return fmt::format("{}:{}", model, seed);
}

// As CUDA_VISIBLE_DEVICES names them.
std::vector<std::string> gpus(const Common& common) {
  std::vector<std::string> all;
  if (common.device != "cuda") return all;
  common.torch_device();  // says why there is none
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES"); visible != nullptr) {
    std::istringstream list(visible);
    for (std::string one; std::getline(list, one, ',');) all.push_back(one);
  } else {
    for (int i = 0; i < Common::gpu_count(); ++i) all.push_back(fmt::format("{}", i));
  }
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

// A process of this program with both outputs at the end of `log`.
pid_t start(std::vector<std::string> arguments, const std::vector<std::string>& settings, const fs::path& log) {
  arguments.insert(arguments.begin(), "oryx");
  std::vector<std::string> environment = settings;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry, key = text.substr(0, text.find('=') + 1);
    if (std::none_of(settings.begin(), settings.end(), [&](const auto& s) { return s.starts_with(key); }))
      environment.push_back(text);
  }
  const std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
  const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  require(output >= 0, "{}: cannot be written: {}", log.string(), std::generic_category().message(errno));
  const pid_t parent = getpid(), child = fork();
  if (child == 0) {  // nothing here but system calls: other threads may have held any lock
    setpgid(0, 0);   // a terminal's SIGINT comes through the parent alone
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    execve("/proc/self/exe", argv.data(), envp.data());
    _exit(127);
  }
  const int error = errno;
  close(output);
  require(child > 0, "no process could be started ({}); give a smaller --jobs", std::generic_category().message(error));
  return child;
}

// The end of a file, or nothing.
std::string tail(const fs::path& path) {
  constexpr std::streamoff kBytes = 4096;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  file.seekg(std::max<std::streamoff>(0, file.tellg() - kBytes));
  return {std::istreambuf_iterator<char>(file), {}};
}

// Of the last whole line of metrics.jsonl.
int64_t tokens_seen(const fs::path& run) {
  constexpr std::string_view kKey = "\"tokens\":";
  const std::string text = tail(run / "metrics.jsonl");
  const size_t at = text.rfind(kKey, text.rfind('\n'));
  return at == std::string::npos ? 0 : std::strtoll(text.c_str() + at + kKey.size(), nullptr, 10);
}

std::string last_line(const fs::path& log) {
  std::string text = tail(log);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

class RunPool {
 public:
  RunPool(const Comparison& comparison, const fs::path& out, std::vector<std::string> command, int jobs,
          const Common& common)
      : command_(std::move(command)), jobs_(jobs), gpus_(gpus(common)) {
    for (size_t i = 0; i < comparison.seeds.size(); ++i)
      for (const auto& [name, recipes] : comparison.models)
        waiting_.push_back({run_name(name, comparison.seeds[i]), run_folder(out, name, comparison.seeds[i]),
                            recipes[i].train.tokens, passes(recipes[i].mixing, recipes[i].model)});
    std::stable_sort(waiting_.begin(), waiting_.end(),
                     [](const Run& a, const Run& b) { return a.tokens * a.passes > b.tokens * b.passes; });
    count_ = waiting_.size();
    for (const Run& run : waiting_) total_ += run.tokens * run.passes;
    const int threads = std::max(1, at::get_num_threads() / std::min(jobs_, static_cast<int>(count_)));
    settings_ = {fmt::format("OMP_NUM_THREADS={}", threads)};
  }

  int run() {
    const StopSignal stop;
    Progress progress(fmt::format("{} runs, {} at a time", count_, jobs_), total_, seen());
    bool passed_on = false;
    for (int turn = 0; !going_.empty() || (!waiting_.empty() && StopSignal::received() == 0); ++turn) {
      while (StopSignal::received() == 0 && !waiting_.empty() && going_.size() < static_cast<size_t>(jobs_)) begin();
      if (StopSignal::received() != 0 && !passed_on) {
        for (const auto& [process, run] : going_) kill(process, SIGTERM);
        passed_on = true;
      }
      std::this_thread::sleep_for(50ms);
      reap();
      // About once a second: it reads a file of every run.
      if (turn % 20 == 0)
        progress.update(ended_ + seen(), fmt::format("{} ended", count_ - waiting_.size() - going_.size()));
    }
    if (const int signal = StopSignal::received(); signal != 0) return signal;
    progress.update(ended_, fmt::format("{} ended", count_));
    progress.finish();
    if (failure_.empty()) return 0;
    if (failed_by_input_) throw InputError(failure_);
    throw std::runtime_error(failure_);
  }

 private:
  // Of the runs that have not ended.
  int64_t seen() const {
    int64_t sum = 0;
    const auto add = [&](const Run& run) { sum += std::min(run.tokens, tokens_seen(run.folder)) * run.passes; };
    for (const Run& run : waiting_) add(run);
    for (const auto& [process, run] : going_) add(run);
    return sum;
  }

  void begin() {
    Run run = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    std::error_code error;
    fs::create_directories(run.folder, error);
    require(!error, "{}: cannot be made: {}", run.folder.string(), error.message());
    std::vector<std::string> arguments = command_, settings = settings_;
    arguments.insert(arguments.end(), {"--run", run.name});
    if (!gpus_.empty()) {
      std::vector<int> load(gpus_.size());  // runs on each
      for (const auto& [process, other] : going_) ++load[other.gpu];
      run.gpu = static_cast<size_t>(std::min_element(load.begin(), load.end()) - load.begin());
      settings.push_back("CUDA_VISIBLE_DEVICES=" + gpus_[run.gpu]);
    }
    const pid_t process = start(std::move(arguments), settings, run.folder / kLog);
    going_.emplace(process, std::move(run));
  }

  void reap() {
    for (auto it = going_.begin(); it != going_.end();) {
      int status = 0;
      if (waitpid(it->first, &status, WNOHANG) != it->first) {
        ++it;
        continue;
      }
      const Run& run = it->second;
      ended_ += run.tokens * run.passes;
      if (status != 0 && StopSignal::received() == 0) {
        const std::string how = WIFSIGNALED(status) ? fmt::format("ended by signal {}", WTERMSIG(status))
                                                    : fmt::format("exit status {}", WEXITSTATUS(status));
        const std::string message = fmt::format("{}: {}: {}; the rest is in {}", run.name, how,
                                                last_line(run.folder / kLog), (run.folder / kLog).string());
        if (failure_.empty()) failed_by_input_ = WIFEXITED(status) && WEXITSTATUS(status) == 2;
        if (failure_.empty()) failure_ = message;
        Progress::say(message);
      }
      it = going_.erase(it);
    }
  }

  static constexpr const char* kLog = "log.txt";

  std::vector<std::string> command_, settings_;
  int jobs_;
  std::vector<std::string> gpus_;
  std::vector<Run> waiting_;
  std::map<pid_t, Run> going_;
  size_t count_ = 0;
  int64_t total_ = 0, ended_ = 0;
  std::string failure_;
  bool failed_by_input_ = false;
};

}  // namespace

void add_run_options(CLI::App& command, int& jobs, std::string& run) {
  CLI::Option* option =
      command.add_option("--jobs", jobs, "Runs at a time, each in a process of its own; on all GPUs that are visible")
          ->check(CLI::Range(1, 1024))
          ->capture_default_str();
  command.add_option("--run", run, "MODEL:SEED: this run alone, as --jobs starts them, or a batch system")
      ->excludes(option);
}

std::pair<size_t, size_t> parse_run(const std::string& text, const Comparison& comparison) {
  for (size_t model = 0; model < comparison.models.size(); ++model)
    for (size_t seed = 0; seed < comparison.seeds.size(); ++seed)
      if (text == run_name(comparison.models[model].name, comparison.seeds[seed])) return {model, seed};
  input_error("--run {}: there is no such run; give MODEL:SEED, such as {}", text,
              run_name(comparison.models.front().name, comparison.seeds.front()));
}

int run_all(ComparisonRun& runs, std::vector<std::string> command, const std::vector<std::string>& set, int jobs,
            const Common& common) {
  if (jobs > 1) {
    command.insert(command.end(), {"--out", runs.out().string(), "--device", common.device, "--dtype", common.dtype});
    for (const std::string& assignment : set) command.insert(command.end(), {"--set", assignment});
    runs.prepare();
    const int signal = RunPool(runs.comparison(), runs.out(), std::move(command), jobs, common).run();
    if (signal != 0) return signal;
  }
  return runs.run();
}

}  // namespace oryx::cli
