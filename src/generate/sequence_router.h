#pragma once

#include <cstdint>
#include <vector>

#include "model/schedule.h"

namespace oryx {

// The modes of one sequence as it grows.
class SequenceRouter {
 public:
  virtual ~SequenceRouter() = default;
  // Modes of the next tokens. Those of the first call are the prompt, known as a whole.
  virtual MixerSchedule read(const std::vector<int64_t>& tokens) = 0;
  // Whether a token that is still to come may get this mode.
  virtual bool may_use(Mode) const { return true; }
};

// Follows a schedule that was fixed beforehand. InputError past its end.
class ScheduleRouter : public SequenceRouter {
 public:
  explicit ScheduleRouter(MixerSchedule schedule) : schedule_(std::move(schedule)) {}
  MixerSchedule read(const std::vector<int64_t>& tokens) override;
  bool may_use(Mode mode) const override;

 private:
  MixerSchedule schedule_;
  int64_t length_ = 0;
};

}  // namespace oryx
