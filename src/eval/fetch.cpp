#include "eval/fetch.h"

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "data/text_file.h"
#include "eval/originals.h"

namespace oryx {
namespace {

namespace fs = std::filesystem;

struct Source {
  const char* name;
  const char* file;                    // to be written
  std::vector<std::string> originals;  // any of these
  const char* folder;                  // a part of the path of names that other sets have too, lower case
  OriginalReader read;                 // null: the text as it is
};

const std::vector<Source>& sources() {
  static const std::vector<Source> kSources{
      {"lambada", "lambada_openai_test.jsonl", {"lambada_test.jsonl", "lambada_test_en.jsonl"}, "", read_lambada},
      {"hellaswag", "hellaswag_val.jsonl", {"hellaswag_val.jsonl"}, "", read_hellaswag},
      {"piqa", "piqa_valid.jsonl", {"valid.jsonl", "dev.jsonl"}, "iqa", read_piqa},
      {"arc_easy", "arc_easy_test.jsonl", {"ARC-Easy-Test.jsonl"}, "", read_arc},
      {"arc_challenge", "arc_challenge_test.jsonl", {"ARC-Challenge-Test.jsonl"}, "", read_arc},
      {"openbookqa", "openbookqa_test.jsonl", {"test.jsonl"}, "openbookqa", read_arc},
      {"winogrande", "winogrande_xl_dev.jsonl", {"dev.jsonl"}, "winogrande", read_winogrande},
      {"blimp", "blimp.jsonl", {}, "blimp", read_blimp},
      {"squad", "squad_v1_dev.jsonl", {"dev-v1.1.json"}, "", read_squad},
      {"nq_open", "nq_open_dev.jsonl", {"NQ-open.dev.jsonl", "NQ-open.efficientqa.dev.1.1.jsonl"}, "", read_nq_open},
      {"triviaqa",
       "triviaqa_dev.jsonl",
       {"unfiltered-web-dev.json", "web-dev.json", "wikipedia-dev.json"},
       "",
       read_triviaqa},
      {"drop", "drop_dev.jsonl", {"drop_dataset_dev.json"}, "", read_drop},
      {"wikitext", "wikitext2_test.txt", {"wiki.test.raw", "wiki.test.tokens"}, "", nullptr},
  };
  return kSources;
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return c < 128 ? std::tolower(c) : c; });
  return text;
}

std::string wanted(const Source& source) {
  std::string text = source.originals.empty() ? "*.jsonl" : "";
  for (const std::string& name : source.originals) text += (text.empty() ? "" : " or ") + name;
  return *source.folder ? fmt::format("{} below a folder named like '{}'", text, source.folder) : text;
}

// All files of BLiMP's folder; of other sets the one original, by preference where there are several.
std::vector<fs::path> find_originals(const Source& source, const fs::path& root, const std::vector<fs::path>& files) {
  const auto matches = [&](const fs::path& path, const std::string& name) {
    const std::string folder = lower(path.lexically_relative(root.parent_path()).parent_path().string());
    return folder.find(source.folder) != std::string::npos &&
           (name.empty() ? path.extension() == ".jsonl" : path.filename() == name);
  };
  std::vector<fs::path> found;
  if (source.originals.empty()) {
    std::ranges::copy_if(files, std::back_inserter(found), [&](const fs::path& path) { return matches(path, ""); });
    return found;
  }
  for (const std::string& name : source.originals) {
    std::ranges::copy_if(files, std::back_inserter(found), [&](const fs::path& path) { return matches(path, name); });
    if (found.size() > 1)
      input_error("{} is there twice: {} and {}; leave one of them", source.name, found[0].string(), found[1].string());
    if (!found.empty()) break;
  }
  return found;
}

}  // namespace

std::vector<std::string> fetchable_sets() {
  std::vector<std::string> names;
  for (const Source& source : sources()) names.emplace_back(source.name);
  return names;
}

std::vector<FetchedSet> fetch_sets(const fs::path& from, const fs::path& to, const std::vector<std::string>& sets) {
  const auto known = fetchable_sets();
  for (const std::string& name : sets)
    require(std::ranges::find(known, name) != known.end(), "there is no set '{}'{}", name, did_you_mean(name, known));
  std::vector<fs::path> files;
  std::error_code error;
  const fs::path root = fs::weakly_canonical(from, error);
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end; it.increment(error))
    if (it->is_regular_file()) files.push_back(it->path());
  require(!error, "{}: cannot be read ({}); give the folder that holds the downloaded files", from.string(),
          error.message());
  std::ranges::sort(files);
  std::vector<FetchedSet> fetched;
  for (const Source& source : sources()) {
    const bool asked = std::ranges::find(sets, source.name) != sets.end();
    if (!sets.empty() && !asked) continue;
    FetchedSet set{source.name, {}, 0, wanted(source)};
    const auto originals = find_originals(source, root, files);
    require(!asked || !originals.empty(), "{}: {} is not there; it is made from {}", from.string(), source.name,
            set.wanted);
    std::string content;
    for (const fs::path& path : originals) {
      if (source.read == nullptr) {
        content += read_utf8_file(path);
        continue;
      }
      const Records records = source.read(path);
      for (const Json& record : records) content += record.dump() + "\n";
      set.examples += static_cast<int64_t>(records.size());
    }
    if (!originals.empty()) {
      set.file = to / source.name / source.file;
      fs::create_directories(set.file.parent_path());
      write_file_atomically(set.file, content);
    }
    fetched.push_back(std::move(set));
  }
  require(std::ranges::any_of(fetched, [](const FetchedSet& set) { return !set.file.empty(); }),
          "{}: none of the originals is there; the sets are made from, for example, {} ({}), {} ({})", from.string(),
          sources()[0].originals[0], sources()[0].name, sources()[8].originals[0], sources()[8].name);
  return fetched;
}

}  // namespace oryx
