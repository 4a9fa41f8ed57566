#include "cli/eval_fetch.h"

#include <cstdio>

#include "base/error.h"
#include "eval/fetch.h"

namespace oryx::cli {
namespace {

struct FetchOptions {
  std::string from, to;
  std::vector<std::string> sets;
};

void run(const FetchOptions& options, const Common& common) {
  const auto fetched = fetch_sets(options.from, options.to, options.sets);
  Json out = Json::object();
  for (const FetchedSet& set : fetched) {
    if (set.file.empty()) {
      out[set.name] = {{"missing", set.wanted}};
      if (!common.json) std::printf("%-14s not there: %s\n", set.name.c_str(), set.wanted.c_str());
      continue;
    }
    out[set.name] = {{"file", set.file.string()}, {"examples", set.examples}};
    if (!common.json)
      std::printf("%-14s %7lld examples  %s\n", set.name.c_str(), static_cast<long long>(set.examples),
                  set.file.c_str());
  }
  if (common.json) Common::print(out);
}

}  // namespace

void add_fetch(CLI::App& eval, Common& common) {
  auto options = std::make_shared<FetchOptions>();
  CLI::App* command = eval.add_subcommand("fetch", "Evaluation sets from their public originals, downloaded before");
  command->add_option("DIR", options->from, "Folder that holds the downloaded files, in any subfolders")->required();
  command->add_option("--out", options->to, "Folder to write SET/FILE into")->required();
  command->add_option("--sets", options->sets, "Only these, e.g. lambada,piqa")->delimiter(',');
  command->callback([options, &common] { run(*options, common); });
}

}  // namespace oryx::cli
