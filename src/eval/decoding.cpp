#include "eval/decoding.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "base/error.h"
#include "eval/prefix_tree.h"
#include "ops/common/packing.h"

namespace oryx {
namespace {

struct Live {
  size_t request;
  Cache cache;
  int64_t next;  // the token chosen last, not yet read
};

using Ends = std::function<bool(size_t, const std::vector<int64_t>&)>;

std::vector<int64_t> most_probable(const LanguageModel& model, const at::Tensor& hidden) {
  const at::Tensor best = model.logits(hidden).argmax(-1).cpu();
  return {best.const_data_ptr<int64_t>(), best.const_data_ptr<int64_t>() + best.numel()};
}

// Requests [begin, begin + prompts.size()), whose prompts are read together.
class Batch {
 public:
  Batch(const LanguageModel& model, const std::vector<DecodingRequest>& requests, size_t begin, const Ends& ends,
        std::vector<std::vector<int64_t>>& continuations)
      : model_(model), requests_(requests), begin_(begin), ends_(ends), continuations_(continuations) {}

  void read_prompts(const std::vector<ReadSequence>& prompts, int64_t batch_tokens) {
    read_sharing_prefixes(model_, prompts, batch_tokens, /*keep_caches=*/true,
                          [&](const at::Tensor& hidden, std::span<const Segment> segments) {
                            std::vector<int64_t> rows;
                            for (const Segment& segment : segments)
                              for (const size_t s : segment.sequences)
                                if (static_cast<int64_t>(prompts[s].tokens.size()) == segment.end) {
                                  rows.push_back(segment.row + segment.end - 1 - segment.wanted);
                                  live_.push_back({begin_ + s, segment.cache->fork(), -1});
                                }
                            if (rows.empty()) return;
                            const at::Tensor index = ops::upload(rows, model_.device());
                            const auto chosen = most_probable(model_, hidden.index_select(0, index));
                            for (size_t i = 0; i < chosen.size(); ++i)
                              live_[live_.size() - chosen.size() + i].next = chosen[i];
                          });
    drop_what_is_over();
    take();
  }

  bool alive() const { return !live_.empty(); }
  int64_t ended() const { return ended_; }

  // Reads the tokens chosen last and chooses the next ones.
  void step() {
    std::vector<int64_t> tokens;
    std::vector<SequenceSpec> specs;
    std::vector<Cache*> caches;
    for (Live& live : live_) {
      const int64_t at = live.cache.length();
      tokens.push_back(live.next);
      specs.push_back({requests_[live.request].schedule.slice(at, at + 1), at});
      caches.push_back(&live.cache);
    }
    const SequenceLayout layout(std::move(specs), model_.config().num_hidden_layers, model_.device());
    const auto chosen = most_probable(model_, model_.hidden(at::tensor(tokens), layout, caches));
    for (size_t i = 0; i < chosen.size(); ++i) live_[i].next = chosen[i];
    take();
  }

 private:
  // Caches of one batch hold the same parts, so a part goes when no continuation asks for it any more.
  void drop_what_is_over() {
    const auto needed = [&](Mode mode) {
      return std::ranges::any_of(live_, [&](const Live& live) {
        const MixerSchedule& schedule = requests_[live.request].schedule;
        return schedule.slice(live.cache.length(), schedule.length()).uses(mode);
      });
    };
    const bool attends = needed(Mode::attention), recurs = needed(Mode::recurrent);
    for (Live& live : live_) {
      if (!attends && live.cache.has_kv()) live.cache.drop_kv();
      if (!recurs && live.cache.has_state()) live.cache.drop_state();
    }
  }

  void take() {
    const size_t before = live_.size();
    std::erase_if(live_, [&](const Live& live) {
      auto& continuation = continuations_[live.request];
      continuation.push_back(live.next);
      return ends_(live.request, continuation) || live.cache.length() >= requests_[live.request].schedule.length();
    });
    ended_ += static_cast<int64_t>(before - live_.size());
  }

  const LanguageModel& model_;
  const std::vector<DecodingRequest>& requests_;
  size_t begin_;
  const Ends& ends_;
  std::vector<std::vector<int64_t>>& continuations_;
  std::vector<Live> live_;
  int64_t ended_ = 0;
};

}  // namespace

std::vector<std::vector<int64_t>> decode_greedily(const LanguageModel& model,
                                                  const std::vector<DecodingRequest>& requests, const Ends& ends,
                                                  int64_t batch_tokens, const std::function<void(int64_t)>& done) {
  c10::NoGradGuard no_grad;
  std::vector<std::vector<int64_t>> continuations(requests.size());
  for (size_t begin = 0; begin < requests.size();) {
    std::vector<ReadSequence> prompts;
    int64_t tokens = 0;
    for (size_t i = begin; i < requests.size() && (i == begin || tokens < batch_tokens); ++i) {
      require(!requests[i].prompt.empty() &&
                  requests[i].schedule.length() >= static_cast<int64_t>(requests[i].prompt.size()),
              "a prompt needs at least one token and a schedule of all its tokens");
      const auto length = static_cast<int64_t>(requests[i].prompt.size());
      prompts.push_back({requests[i].prompt, &requests[i].schedule, length - 1});
      tokens += length;
    }
    Batch batch(model, requests, begin, ends, continuations);
    batch.read_prompts(prompts, batch_tokens);
    if (done) done(static_cast<int64_t>(begin) + batch.ended());
    while (batch.alive()) {
      batch.step();
      if (done) done(static_cast<int64_t>(begin) + batch.ended());
    }
    begin += prompts.size();
  }
  return continuations;
}

}  // namespace oryx
