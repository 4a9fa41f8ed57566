#include "cli/options.h"

#include <c10/core/GradMode.h>

#include <cstdio>

#include "base/error.h"

#ifdef ORYX_CUDA
#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#endif

namespace oryx::cli {

at::Device Common::torch_device([[maybe_unused]] int gpu) const {
  if (device == "cpu") return at::kCPU;
#ifdef ORYX_CUDA
  require(at::globalContext().hasCUDA(), "--device cuda: no usable GPU was found; use --device cpu");
  const int count = gpu_count();
  require(gpu < count, "--device cuda: process {} of this machine has no GPU of its own, there are {}", gpu, count);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(gpu)};
#else
  input_error("--device cuda: this build has no CUDA; build with 'cmake --preset cuda', or use --device cpu");
#endif
}

int Common::gpu_count() {
#ifdef ORYX_CUDA
  return c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
#else
  return 0;
#endif
}

LanguageModel Common::load_model(const std::string& directory) const {
  LanguageModel model = LanguageModel::load(directory, torch_device());
  model.set_compute_type(torch_type(), /*convert_weights=*/true);
  return model;
}

ScheduleSpec Common::schedule(const std::string& text, const LanguageModel& model) {
  if (!text.empty()) return ScheduleSpec::parse(text);
  return ScheduleSpec::parse(mode_name(model.config().has(Mode::attention) ? Mode::attention : Mode::recurrent));
}

std::unique_ptr<Policy> Common::policy(const std::string& schedule, const std::string& policy,
                                       const std::string& directory, const LanguageModel& model) {
  return policy.empty() ? schedule_policy(Common::schedule(schedule, model)) : make_policy(policy, directory, model);
}

void Common::add_policy(CLI::App& command, std::string& policy) {
  command
      .add_option("--policy", policy,
                  "Instead of a schedule: entropy, margin, gate (see oryx gate) or oracle, as entropy:FRACTION[:CHUNK]")
      ->excludes("--schedule");
}

void Common::print(const Json& json) {
  std::printf("%s\n", json.dump().c_str());
}

}  // namespace oryx::cli
