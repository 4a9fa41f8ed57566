#include "eval/prefix_tree.h"

#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace oryx {
namespace {

constexpr int64_t kShortest = 8;  // fewer common tokens are not worth a cache

int64_t common_spans(const std::vector<Span>& a, const std::vector<Span>& b, int64_t n) {
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const int64_t begin = std::max(a[i].begin, b[j].begin), end = std::min(a[i].end, b[j].end);
    if (begin >= n) return n;
    if (a[i].mode != b[j].mode) return begin;
    i += a[i].end == end;
    j += b[j].end == end;
  }
  return n;
}

// How many tokens a and b begin with that are the same and served the same way in every layer.
int64_t common_tokens(const ReadSequence& a, const ReadSequence& b) {
  const auto n = static_cast<int64_t>(std::min(a.tokens.size(), b.tokens.size()));
  int64_t same = std::mismatch(a.tokens.begin(), a.tokens.begin() + n, b.tokens.begin()).first - a.tokens.begin();
  same = common_spans(a.schedule->common(), b.schedule->common(), same);
  std::set<int64_t> layers;
  for (const auto* schedule : {a.schedule, b.schedule})
    for (const auto& [layer, spans] : schedule->layers()) layers.insert(layer);
  for (const int64_t layer : layers) same = common_spans(a.schedule->spans(layer), b.schedule->spans(layer), same);
  return same;
}

struct Node {
  size_t first, last;  // of the sorted sequences
  int64_t begin, end;
  std::vector<Node> children;
};

class Reader {
 public:
  Reader(const LanguageModel& model, const std::vector<ReadSequence>& sequences, int64_t batch_tokens, bool keep_caches,
         const std::function<void(const at::Tensor&, std::span<const Segment>)>& visit)
      : model_(model), sequences_(sequences), batch_tokens_(batch_tokens), keep_caches_(keep_caches), visit_(visit) {
    order_.resize(sequences.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::ranges::stable_sort(order_, [&](size_t a, size_t b) { return before(sequences_[a], sequences_[b]); });
    for (size_t i = 0; i + 1 < order_.size(); ++i)
      common_.push_back(common_tokens(sequences_[order_[i]], sequences_[order_[i + 1]]));
    for (const ReadSequence& s : sequences) {
      attends_ |= s.schedule->uses(Mode::attention);
      recurs_ |= s.schedule->uses(Mode::recurrent);
    }
  }

  void run() {
    std::vector<Child> roots;
    const auto nodes = build(0, order_.size(), 0);
    roots.reserve(nodes.size());
    for (const Node& node : nodes) roots.push_back({&node, nullptr});
    run(std::move(roots));
  }

 private:
  struct Child {
    const Node* node;
    const Cache* parent;
  };

  // A dictionary's order of what each token is and who serves it.
  bool before(const ReadSequence& a, const ReadSequence& b) const {
    const int64_t at = common_tokens(a, b);
    const auto left_a = static_cast<int64_t>(a.tokens.size()) - at, left_b = static_cast<int64_t>(b.tokens.size()) - at;
    if (left_a == 0 || left_b == 0) return left_a < left_b;
    if (a.tokens[at] != b.tokens[at]) return a.tokens[at] < b.tokens[at];
    for (int64_t layer = 0; layer < model_.config().num_hidden_layers; ++layer) {
      const Mode mode_a = a.schedule->at(at, layer), mode_b = b.schedule->at(at, layer);
      if (mode_a != mode_b) return mode_a < mode_b;
    }
    return false;
  }

  std::vector<Node> build(size_t first, size_t last, int64_t begin) const {
    std::vector<Node> nodes;
    for (size_t i = first; i < last;) {
      size_t stop = i + 1;
      int64_t end = length(i);
      for (; stop < last && common_[stop - 1] >= begin + kShortest; ++stop) end = std::min(end, common_[stop - 1]);
      if (end > begin) nodes.push_back({i, stop, begin, end, {}});
      if (stop > i + 1) nodes.back().children = build(i, stop, end);
      i = stop;
    }
    return nodes;
  }

  int64_t length(size_t i) const { return static_cast<int64_t>(sequences_[order_[i]].tokens.size()); }

  bool needs_cache(const Child& child) const { return keep_caches_ || !child.node->children.empty(); }

  void run(std::vector<Child> nodes) {
    // Pieces that need a cache and those that do not are not run together.
    std::stable_partition(nodes.begin(), nodes.end(), [&](const Child& child) { return needs_cache(child); });
    for (size_t begin = 0; begin < nodes.size();) {
      size_t end = begin;
      for (int64_t tokens = 0; end < nodes.size() && (end == begin || tokens < batch_tokens_); ++end) {
        if (needs_cache(nodes[end]) != needs_cache(nodes[begin])) break;
        tokens += nodes[end].node->end - nodes[end].node->begin;
      }
      run_batch({nodes.data() + begin, end - begin}, needs_cache(nodes[begin]));
      begin = end;
    }
  }

  // Of the first token of a piece that some sequence asks for.
  int64_t wanted(const Node& node) const {
    int64_t first = node.end;
    for (size_t i = node.first; i < node.last; ++i) first = std::min(first, sequences_[order_[i]].wanted);
    return std::max(first, node.begin);
  }

  // All of a batch have a parent, or none has.
  void run_batch(std::span<const Child> batch, bool cached) {
    std::vector<Cache> caches;
    std::vector<Cache*> written;
    std::vector<const Cache*> past;
    std::vector<Segment> segments;
    std::vector<SequenceSpec> specs;
    std::vector<int64_t> tokens, rows;
    caches.reserve(batch.size());
    for (const auto& [node, parent] : batch) {
      if (cached) {
        caches.push_back(parent ? parent->fork() : new_cache());
        written.push_back(&caches.back());
      } else if (parent) {
        past.push_back(parent);
      }
      const ReadSequence& s = sequences_[order_[node->first]];
      const int64_t from = wanted(*node), first = static_cast<int64_t>(tokens.size()) - node->begin;
      segments.push_back({static_cast<int64_t>(rows.size()), node->begin, node->end, from,
                          std::span(order_).subspan(node->first, node->last - node->first),
                          cached ? &caches.back() : nullptr});
      for (int64_t t = from; t < node->end; ++t) rows.push_back(first + t);
      specs.push_back({s.schedule->slice(node->begin, node->end), node->begin});
      tokens.insert(tokens.end(), s.tokens.begin() + node->begin, s.tokens.begin() + node->end);
    }
    const SequenceLayout layout(std::move(specs), model_.config().num_hidden_layers, model_.device(), rows);
    const at::Tensor ids = at::tensor(tokens);
    visit_(cached ? model_.hidden(ids, layout, written) : model_.hidden_after(past, ids, layout), segments);
    std::vector<Child> children;
    for (size_t i = 0; i < batch.size(); ++i)
      for (const Node& child : batch[i].node->children) children.push_back({&child, &caches[i]});
    run(std::move(children));
  }

  Cache new_cache() const {
    Cache cache = model_.make_cache({.keep_inputs = false});
    if (!attends_) cache.drop_kv();
    if (!recurs_ && cache.has_state()) cache.drop_state();
    return cache;
  }

  const LanguageModel& model_;
  const std::vector<ReadSequence>& sequences_;
  int64_t batch_tokens_;
  bool keep_caches_;
  const std::function<void(const at::Tensor&, std::span<const Segment>)>& visit_;
  std::vector<size_t> order_;    // of the sequences, sorted by their tokens
  std::vector<int64_t> common_;  // of neighbours in that order
  bool attends_ = false, recurs_ = false;
};

}  // namespace

void read_sharing_prefixes(const LanguageModel& model, const std::vector<ReadSequence>& sequences, int64_t batch_tokens,
                           bool keep_caches,
                           const std::function<void(const at::Tensor&, std::span<const Segment>)>& visit) {
  c10::NoGradGuard no_grad;
  Reader(model, sequences, batch_tokens, keep_caches, visit).run();
}

}  // namespace oryx
