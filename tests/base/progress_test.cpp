#include "base/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

namespace oryx {
namespace {

// A busy machine may stretch any wait: what depends on time is judged by the time that passed.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

TEST(Progress, PipedPrintsPlainLines) {
  const Stopwatch stopwatch;
  testing::internal::CaptureStderr();
  {
    Progress progress("train", 2000, 0, 0.02);
    for (int i = 1; i <= 20; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      progress.update(i * 100, "loss 3.2");
    }
    progress.finish("loss 3.1");
    progress.finish();
  }
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_EQ(out.find_first_of("\r\x1b"), std::string::npos) << out;
  const auto lines = std::count(out.begin(), out.end(), '\n');
  EXPECT_GE(lines, 2) << out;
  EXPECT_LE(lines, 1 + stopwatch.seconds() / 0.02) << out;  // at most one per interval, and the last
  EXPECT_NE(out.find("k/2.00k, loss 3.2, "), std::string::npos) << out;
  EXPECT_NE(out.find(" left\n"), std::string::npos) << out;
  EXPECT_NE(out.find("train 100% 2.00k/2.00k, loss 3.1, in "), std::string::npos) << out;
}

TEST(Progress, ShortWorkPrintsOneLine) {
  testing::internal::CaptureStderr();
  {
    Progress progress("eval", 0);
    progress.update(3);
    progress.update(5);
    progress.finish();
  }
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(out.starts_with("eval 5, in ") && out.ends_with("s\n")) << out;
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1) << out;
}

TEST(Progress, QuietPrintsNothing) {
  testing::internal::CaptureStderr();
  Progress::set_quiet(true);
  {
    Progress progress("eval", 10, 0, 0);
    progress.update(5);
    progress.finish();
  }
  Progress::set_quiet(false);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

// Standard error as a pseudo-terminal of 60 columns while `work` runs; what it printed.
template <typename Work>
std::string on_terminal(Work&& work) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) return "";
  const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
  winsize size{24, 60, 0, 0};
  ioctl(terminal, TIOCSWINSZ, &size);
  fflush(stderr);
  const int saved = dup(STDERR_FILENO);
  dup2(terminal, STDERR_FILENO);
  work();
  fflush(stderr);
  dup2(saved, STDERR_FILENO);
  close(saved);
  close(terminal);
  // A terminal hands over what was written piece by piece, and an error once the other end is closed and all is read.
  std::string out;
  char piece[4096];
  for (ssize_t length; (length = read(master, piece, sizeof(piece))) > 0;)
    out.append(piece, static_cast<size_t>(length));
  close(master);
  return out;
}

TEST(Progress, OnATerminalDrawsOneLineInPlace) {
  const Stopwatch stopwatch;
  const std::string out = on_terminal([] {
    Progress progress("train", 1000, 500);
    for (int i = 501; i <= 1000; ++i) progress.update(i, "a long note of more than sixty columns, which must not wrap");
    progress.finish();
  });
  if (out.empty()) GTEST_SKIP() << "no pseudo-terminals here";
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1) << out;
  EXPECT_TRUE(out.ends_with("\n"));
  EXPECT_NE(out.find("\r\x1b[Ktrain [========"), std::string::npos) << out;
  EXPECT_NE(out.find(" 50% 500/1.00k"), std::string::npos) << out;
  EXPECT_LE(std::count(out.begin(), out.end(), '\x1b'), 2 + stopwatch.seconds() / 0.1) << "drawn too often";
  for (size_t at = 0, next; (next = out.find("\x1b[K", at)) != std::string::npos; at = next + 3) {
    const size_t end = out.find_first_of("\r\n", next);
    EXPECT_LT(end - next - 3, 60u) << out;
  }
}

TEST(Progress, AnInterruptedLineIsEnded) {
  const std::string out = on_terminal([] { Progress progress("train", 1000); });
  if (out.empty()) GTEST_SKIP() << "no pseudo-terminals here";
  EXPECT_TRUE(out.ends_with("\n")) << out;
}

TEST(Human, Counts) {
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(1000), "1.00k");
  EXPECT_EQ(human_count(456000), "456k");
  EXPECT_EQ(human_count(999600), "1.00M");
  EXPECT_EQ(human_count(1234567), "1.23M");
  EXPECT_EQ(human_count(12.3e9), "12.3G");
  EXPECT_EQ(human_count(-1500), "-1.50k");
  EXPECT_EQ(human_count(2.5), "2.50");
  EXPECT_EQ(human_count(5e18), "5000000T");
}

TEST(Human, Durations) {
  EXPECT_EQ(human_duration(0), "0.0s");
  EXPECT_EQ(human_duration(12), "12s");
  EXPECT_EQ(human_duration(59.6), "1m00s");
  EXPECT_EQ(human_duration(185), "3m05s");
  EXPECT_EQ(human_duration(3720), "1h02m");
  EXPECT_EQ(human_duration(400000), "4d15h");
  EXPECT_EQ(human_duration(-1), "?");
  EXPECT_EQ(human_duration(1e300), "years");
}

TEST(Human, Bytes) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1024), "1.0 KiB");
  EXPECT_EQ(human_bytes(1.25 * (1 << 30)), "1.2 GiB");
  EXPECT_EQ(human_bytes(150.0 * (1 << 20)), "150 MiB");
}

}  // namespace
}  // namespace oryx
