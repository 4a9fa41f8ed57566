#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "cli/options.h"
#include "train/comparison.h"

namespace oryx::cli {

// MODEL:SEED, as --run takes it. InputError where the comparison has no such run.
std::pair<std::string, int64_t> parse_run(const std::string& text, const Comparison& comparison);

// --jobs and --run of a command that trains a comparison's runs.
void add_run_options(CLI::App& command, int& jobs, std::string& run);

// Starts `oryx COMMAND... --run MODEL:SEED` for every run of a comparison, the longest first and `jobs` at a time, each
// on the GPU that has the fewest and with its part of the threads. What a run says goes to OUT/MODEL/seed-N/log.txt.
// SIGINT and SIGTERM are passed on, once; the runs end when this process does. Returns the signal, or 0. A run that
// fails leaves the others alone; what it said last is thrown when they are done, as InputError where its exit status
// was 2.
int run_all(const Comparison& comparison, const std::filesystem::path& out, const std::vector<std::string>& command,
            int jobs, const Common& common);

}  // namespace oryx::cli
