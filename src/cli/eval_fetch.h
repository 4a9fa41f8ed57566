#pragma once

#include "cli/options.h"

namespace oryx::cli {

// `oryx eval fetch DIR --out DIR2`.
void add_fetch(CLI::App& eval, Common& common);

}  // namespace oryx::cli
