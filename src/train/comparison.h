#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "train/recipe.h"

namespace oryx {

// What a COMPARISON.toml says: models that are trained on the same tokens in the same order.
//
//   recipe = "base.toml"          # or another comparison; what follows is laid over it, [data] in place of its [data]
//   seeds = [0, 1]                # default: the recipe's train.seed
//   [[models]]
//   name = "gdn"                  # of its folder; default: the preset
//   preset = "gdn-10m"            # short for model.preset
//   train.lr = 2e-3               # any key of [model], [mixing], [train] that does not change the tokens
struct Comparison {
  struct Model {
    std::string name;
    std::vector<Recipe> recipes;  // one for each seed
  };
  std::vector<int64_t> seeds;
  std::vector<Model> models;

  // `overrides` ("table.key=value") apply to what is common. Relative paths of [data] are taken from the folder of the
  // file that has it. InputErrors name the file, and the model where it is one model's.
  static Comparison load(const std::filesystem::path& path, const std::vector<std::string>& overrides);
  // The file laid over its recipe and with the overrides, and the folder that relative paths of [data] are taken from.
  static std::pair<Json, std::filesystem::path> read(const std::filesystem::path& path,
                                                     const std::vector<std::string>& overrides);
  // With the recipe's tables, 'seeds' and 'models' in `base`. InputErrors begin with `source`.
  static Comparison from_json(Json base, const std::string& source, const std::filesystem::path& data_folder);
};

}  // namespace oryx
