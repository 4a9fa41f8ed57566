#include "model/schedule.h"

#include "base/error.h"
#include "check.h"

using namespace oryx;

namespace {

void check_schedule(const MixerSchedule& schedule, int64_t length, const ModelConfig& config) {
  check(schedule.length() == length, "a schedule has the length it was bound to");
  const std::string text = schedule.str();
  check(ScheduleSpec::parse(text).resolve(length, config) == schedule, "what is printed parses to the same");
  const double fraction = schedule.attention_fraction(config.num_hidden_layers);
  check(fraction >= 0 && fraction <= 1, "the attention fraction lies in [0, 1]");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ModelConfig config = [] {
    ModelConfig c;
    c.num_hidden_layers = 12;
    return c;
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const ScheduleSpec spec = ScheduleSpec::parse(text);
    for (int64_t length : {0, 1, 2, 10, 64, 257, 1000}) {
      try {
        check_schedule(spec.resolve(length, config), length, config);
      } catch (const InputError& error) {
        check_message(error.what());
      }
      try {
        const MixerSchedule open = spec.resolve_open(length, config);
        check_schedule(open, length, config);
        check(spec.resolve_open(length + 7, config).slice(0, length) == open, "a longer generation begins the same");
      } catch (const InputError& error) {
        check_message(error.what());
      }
    }
  } catch (const InputError& error) {
    check_message(error.what());
  }
  return 0;
}
