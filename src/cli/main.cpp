#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <malloc.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "cli/options.h"

namespace {

using oryx::cli::Common;

void prepare(const Common& common) {
  // glibc maps and unmaps every block above 32 MB, a page fault for each 4 KiB every time; keep freed memory instead.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  // Without either, all cores: LibTorch by itself may take fewer.
  if (common.threads > 0)
    at::set_num_threads(common.threads);
  else if (std::getenv("OMP_NUM_THREADS") == nullptr)
    at::set_num_threads(static_cast<int>(std::thread::hardware_concurrency()));
  at::globalContext().setFlushDenormal(true);  // decayed states reach denormals, which are slow and worth nothing
}

// One line, whatever the message: what a user can put right ends with status 2.
int fail(int status, std::string message) {
  for (char& c : message)
    if (c == '\n') c = ' ';
  std::fprintf(stderr, "oryx: %s\n", message.c_str());
  return status;
}

int run(int argc, char** argv) {
  CLI::App app("Oryx: language models that change between attention and a linear recurrence at any token.", "oryx");
  app.require_subcommand(1);
  app.set_version_flag("--version", "oryx " ORYX_VERSION);
  app.fallthrough();
  Common common;
  app.add_flag("--json", common.json, "Standard output is JSON and nothing else");
  app.add_option("--threads", common.threads, "Threads (default: OMP_NUM_THREADS, or all cores)")
      ->check(CLI::Range(1, 4096));
  app.add_option("--device", common.device, "cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--dtype", common.dtype, "Computation in fp32 or bf16")->check(CLI::IsMember({"fp32", "bf16"}));
  oryx::cli::add_init(app, common);
  oryx::cli::add_info(app, common);
  oryx::cli::add_data(app, common);
  oryx::cli::add_train(app, common);
  oryx::cli::add_compare(app, common);
  oryx::cli::add_score(app, common);
  oryx::cli::add_eval(app, common);
  oryx::cli::add_gate(app, common);
  oryx::cli::add_generate(app, common);
  oryx::cli::add_bench(app, common);
  oryx::cli::add_demo(app, common);
  oryx::cli::add_reproduce(app, common);
  // Subcommands run while parsing; the common options must be in force before them.
  app.parse_complete_callback([&] { prepare(common); });
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return fail(2, std::string(e.what()) + "; see oryx --help");
  } catch (const oryx::InputError& e) {
    return fail(2, e.what());
  } catch (const oryx::cli::Interrupted&) {
    return 130;
  } catch (const c10::Error& e) {
    return fail(1, e.what_without_backtrace());
  } catch (const std::exception& e) {
    return fail(1, e.what());
  }
}

}  // namespace

// Nothing is left to do by then but taking apart LibTorch's registry of operators, a fifth of a second.
int main(int argc, char** argv) {
  int status = run(argc, argv);
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == 0)
    status = fail(1, fmt::format("cannot write to standard output: {}", std::strerror(errno)));
  std::fflush(nullptr);
  std::_Exit(status);
}
