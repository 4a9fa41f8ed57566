#pragma once

// Where the tokens of chunks stand, in ChunkList's order of chunks (chunk_list.h).

#include <cstdint>

namespace oryx::ops::cuda {

// Tokens in chunks of C: `places` [chunks, C] names each place's token, or `tokens` where there is none, and `where`
// [tokens] each token's place; both are null when all sequences are `uniform` long.
struct Placement {
  const int64_t *places, *where;
  int64_t uniform, sequences, tokens, C;
};

#ifdef __CUDACC__
// -1: none.
__device__ __forceinline__ int64_t token_at(const Placement& p, int64_t chunk, int64_t i) {
  if (p.places) return p.places[chunk * p.C + i] < p.tokens ? p.places[chunk * p.C + i] : -1;
  const int64_t at = chunk / p.sequences * p.C + i;  // in its sequence
  return at < p.uniform ? chunk % p.sequences * p.uniform + at : -1;
}
__device__ __forceinline__ int64_t place_of(const Placement& p, int64_t token) {
  if (p.where) return p.where[token];
  const int64_t at = token % p.uniform;
  return (at / p.C * p.sequences + token / p.uniform) * p.C + at % p.C;
}

// The chunks of sequence b (in ChunkList's order of sequences), one of each step up to its last. first [steps + 1]
// names each step's first chunk; null where every sequence has a chunk in every step.
struct SequenceChunks {
  const int64_t* first;
  int sequences, b, count;
  __device__ SequenceChunks(const int64_t* first, int64_t steps, int64_t sequences, int b)
      : first(first), sequences(static_cast<int>(sequences)), b(b), count(static_cast<int>(steps)) {
    if (!first) return;
    for (int low = 0; low < count;) {  // steps hold fewer and fewer chunks
      const int middle = (low + count) / 2;
      if (first[middle + 1] - first[middle] > b)
        low = middle + 1;
      else
        count = middle;
    }
  }
  __device__ int chunk(int step) const { return (first ? static_cast<int>(first[step]) : step * sequences) + b; }
};
#endif

}  // namespace oryx::ops::cuda
