#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cli/comparison_run.h"
#include "cli/options.h"

namespace oryx::cli {

// The places of MODEL and SEED in a comparison, of MODEL:SEED as --run takes it. InputError where there is no such run.
std::pair<size_t, size_t> parse_run(const std::string& text, const Comparison& comparison);

// --jobs and --run of a command that trains a comparison's runs.
void add_run_options(CLI::App& command, int& jobs, std::string& run);

// ComparisonRun::run(), before which with more than one job `oryx COMMAND... --run MODEL:SEED` is started for every
// run, with the --set that are given here: the longest first and `jobs` at a time, each on the GPU that has the fewest
// and with its part of the threads. What a run says goes to OUT/MODEL/seed-N/log.txt. SIGINT and SIGTERM are passed on,
// once; the runs end when this process does. Returns the signal, or 0. A run that fails leaves the others alone; what
// it said last is thrown when they are done, as InputError where its exit status was 2.
int run_all(ComparisonRun& runs, std::vector<std::string> command, const std::vector<std::string>& set, int jobs,
            const Common& common);

}  // namespace oryx::cli
