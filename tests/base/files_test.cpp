#include "base/files.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "expect_error.h"
#include "temporary_directory.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

size_t entries_in(const fs::path& directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

TEST(FileWriter, WritesWhatIsRead) {
  TemporaryDirectory directory;
  std::string content(300000, 'x');
  content[5] = '\0';
  FileWriter writer(directory / "f");
  writer.write("");
  writer.write(content);
  writer.close();
  EXPECT_NO_THROW(writer.close());
  EXPECT_EQ(read_text_file(directory / "f"), content);
  EXPECT_INPUT_ERROR(writer.write("x"), "closed");
}

TEST(FileWriter, SaysThatTheDiskIsFull) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  FileWriter writer("/dev/full");
  EXPECT_INPUT_ERROR(
      [&] {
        writer.write("x");
        writer.close();
      }(),
      "cannot write /dev/full: No space left on device");
  // More than the buffer: the write itself fails.
  FileWriter large("/dev/full");
  EXPECT_INPUT_ERROR(large.write(std::string(1 << 20, 'x')), "No space left on device");
}

TEST(Files, ErrorsNameThePathAndTheReason) {
  TemporaryDirectory directory;
  EXPECT_INPUT_ERROR(read_text_file(directory / "none"), "none: No such file or directory");
  EXPECT_INPUT_ERROR(read_text_file(directory.path()), "Is a directory");
  EXPECT_INPUT_ERROR(FileWriter(directory / "a/b"), "a/b: No such file or directory");
  EXPECT_INPUT_ERROR(write_file_atomically(directory / "a/b", "x"), "No such file or directory");
  fs::create_directory(directory / "d");
  EXPECT_INPUT_ERROR(write_file_atomically(directory / "d", "x"), "Is a directory");
  EXPECT_EQ(entries_in(directory.path()), 1u) << "a temporary file was left";
}

TEST(WriteFileAtomically, ReplacesAndLeavesNothingElse) {
  TemporaryDirectory directory;
  write_file_atomically(directory / "f", "old");
  write_file_atomically(directory / "f", "new");
  EXPECT_EQ(read_text_file(directory / "f"), "new");
  EXPECT_EQ(entries_in(directory.path()), 1u);
}

TEST(StagedDirectory, AppearsAtCommitOnly) {
  TemporaryDirectory directory;
  {
    StagedDirectory staged(directory / "parent/final");
    write_file_atomically(staged.path() / "f", "content");
    fs::create_directory(staged.path() / "sub");
    EXPECT_FALSE(fs::exists(directory / "parent/final"));
    staged.commit();
    EXPECT_INPUT_ERROR(staged.commit(), "already in place");
  }
  EXPECT_EQ(read_text_file(directory / "parent/final/f"), "content");
  EXPECT_TRUE(fs::is_directory(directory / "parent/final/sub"));
  EXPECT_EQ(entries_in(directory / "parent"), 1u);
}

TEST(StagedDirectory, IsRemovedWithoutCommit) {
  TemporaryDirectory directory;
  {
    StagedDirectory staged(directory / "final/");
    write_file_atomically(staged.path() / "f", "content");
  }
  EXPECT_EQ(entries_in(directory.path()), 0u);
}

TEST(StagedDirectory, ReplacesTheOldOneWhole) {
  TemporaryDirectory directory;
  for (const char* name : {"first", "second"}) {
    StagedDirectory staged(directory / "final");
    write_file_atomically(staged.path() / name, "x");
    staged.commit();
  }
  EXPECT_FALSE(fs::exists(directory / "final/first"));
  EXPECT_TRUE(fs::exists(directory / "final/second"));
  EXPECT_EQ(entries_in(directory.path()), 1u);
}

TEST(StagedDirectory, ReplacesWhatALinkPointsTo) {
  TemporaryDirectory directory;
  fs::create_directory(directory / "real");
  fs::create_directory_symlink(directory / "real", directory / "link");
  StagedDirectory staged(directory / "link");
  write_file_atomically(staged.path() / "f", "x");
  staged.commit();
  EXPECT_TRUE(fs::is_symlink(directory / "link"));
  EXPECT_TRUE(fs::exists(directory / "real/f"));
}

TEST(StagedDirectory, RefusesWhatItMustNotReplace) {
  TemporaryDirectory directory;
  write_file_atomically(directory / "file", "x");
  EXPECT_INPUT_ERROR(StagedDirectory(directory / "file"), "a file of that name exists");
  EXPECT_INPUT_ERROR(StagedDirectory(directory / "file/below"), "Not a directory");
  EXPECT_INPUT_ERROR(StagedDirectory("."), "working directory");
  EXPECT_INPUT_ERROR(StagedDirectory(".."), "working directory");
  EXPECT_INPUT_ERROR(StagedDirectory("/"), "cannot write");
}

TEST(StagedDirectory, RemovesWhatAKilledProcessLeft) {
  TemporaryDirectory directory;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    StagedDirectory staged(directory / "final");
    std::ofstream(staged.path() / "f") << "half";
    _exit(0);  // no destructor runs
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(entries_in(directory.path()), 1u);
  StagedDirectory staged(directory / "final");
  StagedDirectory neighbour(directory / "final");  // of a living process: stays
  EXPECT_EQ(entries_in(directory.path()), 2u);
  staged.commit();
  EXPECT_TRUE(fs::exists(neighbour.path()));
}

}  // namespace
}  // namespace oryx
