#pragma once

#include "cli/options.h"

namespace oryx::cli {

// `oryx eval TASK... MODEL` and `oryx eval list`.
void add_tasks(CLI::App& eval, Common& common);

}  // namespace oryx::cli
