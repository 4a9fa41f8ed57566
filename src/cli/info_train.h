#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "train/step_memory.h"

namespace oryx::cli {

// What `oryx info --train` says of a recipe: the model that it makes, and the memory of a step on each of `ranks`.
struct TrainInfo {
  ModelConfig model;
  StepMemory memory;
  Json to_json() const;
  void print() const;
};
TrainInfo train_info(const std::string& recipe, const std::vector<std::string>& overrides, at::Device device,
                     int ranks);

}  // namespace oryx::cli
