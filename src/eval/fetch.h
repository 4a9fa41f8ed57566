#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace oryx {

// One evaluation set made from its public original.
struct FetchedSet {
  std::string name;
  std::filesystem::path file;  // written; empty where nothing of the set was found
  int64_t examples = 0;
  std::string wanted;  // the originals that it is made from, for people
};

std::vector<std::string> fetchable_sets();

// Looks for the originals of `sets` (names as above; empty: all) anywhere below `from`, under the names they are
// published with, and writes those found as `to`/SET/FILE in the format of tasks/README.md. A set whose files are not
// there has no `file`. InputErrors: none is found, a set that was asked for by name is not, a file is missing beside
// another one (PIQA's labels), a record lacks what it should have (FILE:LINE), two files have the same name.
std::vector<FetchedSet> fetch_sets(const std::filesystem::path& from, const std::filesystem::path& to,
                                   const std::vector<std::string>& sets);

}  // namespace oryx
