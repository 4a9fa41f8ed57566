#include "data/byte_pair_merges.h"

#include <algorithm>

namespace oryx {
namespace {

struct Symbol {
  int32_t id;
  int32_t previous, next;  // -1: none
};

// A merge that was possible when it was put into the heap.
struct Candidate {
  int32_t rank, left, merged;
  bool operator<(const Candidate& other) const {  // std heaps have the largest in front
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

}  // namespace

void BytePairMerges::apply(std::vector<int32_t>& ids) const {
  if (ids.size() < 2) return;
  const auto count = static_cast<int32_t>(ids.size());
  std::vector<Symbol> symbols(ids.size());
  std::vector<Candidate> heap;
  const auto candidate = [&](int32_t left) {
    const Merge* merge = find(symbols[left].id, symbols[symbols[left].next].id);
    if (merge) heap.push_back({merge->rank, left, merge->merged});
    return merge != nullptr;
  };
  for (int32_t i = 0; i < count; ++i) symbols[i] = {ids[i], i - 1, i + 1 < count ? i + 1 : -1};
  for (int32_t i = 0; i + 1 < count; ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[best.left];
    if (left.id < 0 || left.next < 0) continue;  // already a part of another
    const Merge* merge = find(left.id, symbols[left.next].id);
    if (!merge || merge->merged != best.merged) continue;  // a neighbour has changed
    Symbol& right = symbols[left.next];
    right.id = -1;
    left.id = best.merged;
    left.next = right.next;
    if (left.next >= 0) {
      symbols[left.next].previous = best.left;
      if (candidate(best.left)) std::push_heap(heap.begin(), heap.end());
    }
    if (left.previous >= 0 && candidate(left.previous)) std::push_heap(heap.begin(), heap.end());
  }
  ids.clear();
  for (int32_t i = 0; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
}

}  // namespace oryx
