#pragma once

#include <ATen/core/Tensor.h>

#include <CLI/CLI.hpp>
#include <string>

#include "base/json.h"
#include "generate/policy.h"
#include "model/language_model.h"

namespace oryx::cli {

// Options of every command.
struct Common {
  bool json = false;
  int threads = 0;             // 0: all cores
  std::string device = "cpu";  // cpu | cuda
  std::string dtype = "fp32";  // fp32 | bf16: of the computation
  at::Device torch_device(int gpu = 0) const;
  static int gpu_count();  // 0 in a build without CUDA
  at::ScalarType torch_type() const { return dtype == "bf16" ? at::kBFloat16 : at::kFloat; }
  // A model for inference.
  LanguageModel load_model(const std::string& directory) const;
  // The schedule that the user gave, or the model's first mixer throughout.
  static ScheduleSpec schedule(const std::string& text, const LanguageModel& model);
  // The one of --schedule and --policy that the user gave, or the model's first mixer throughout; for the model in
  // `directory`.
  static std::unique_ptr<Policy> policy(const std::string& schedule, const std::string& policy,
                                        const std::string& directory, const LanguageModel& model);
  // Adds --policy beside the option --schedule, of which one may be given.
  static void add_policy(CLI::App& command, std::string& policy);
  // One JSON object on standard output.
  static void print(const Json& json);
};

// Each adds one subcommand; its callback runs after parsing.
void add_init(CLI::App& app, Common& common);
void add_info(CLI::App& app, Common& common);
void add_data(CLI::App& app, Common& common);
void add_train(CLI::App& app, Common& common);
void add_compare(CLI::App& app, Common& common);
void add_score(CLI::App& app, Common& common);
void add_eval(CLI::App& app, Common& common);
void add_gate(CLI::App& app, Common& common);
void add_generate(CLI::App& app, Common& common);
void add_bench(CLI::App& app, Common& common);
void add_demo(CLI::App& app, Common& common);
void add_reproduce(CLI::App& app, Common& common);

// A terminal's Interrupted run ends with this status.
struct Interrupted {};

}  // namespace oryx::cli
