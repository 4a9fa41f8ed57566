#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace oryx::bench {

enum class Bound { flops, bytes };

// One row of the table: what is measured, and after the run what came out.
struct Row {
  std::string op, pass, dtype;
  int64_t T = 0, heads = 0, dim = 0, batch = 1;
  int64_t tokens = 0;           // served by one call
  Bound bound = Bound::flops;   // what limits it
  double flops = 0, bytes = 0;  // of one call, by bench/formulas.h; 0 where nothing is counted
  Json extra = Json::object();  // keys of this operation alone

  std::vector<double> seconds = {};  // samples
  std::optional<int64_t> peak_bytes = std::nullopt;

  double ms() const;
};

struct Case {
  Row row;
  std::function<void()> run;  // one call; on a GPU it need not wait for the result
};

}  // namespace oryx::bench
