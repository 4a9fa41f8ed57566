#pragma once

// Rows of any length and storage type in vectors of the type that kernels compute in. Included by cpu.cpp only.

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <new>

#include "ops/common/arithmetic.h"
#include "ops/common/parallel.h"
#include "ops/common/vec.h"

namespace oryx::ops::ORYX_ISA {

// A whole vector, or its first n elements (the end of a row): read with zeros behind them, written alone.
struct Whole {};
struct Part {
  int64_t n;
};

template <typename A>
inline Vec<A> get(const A* p, Whole) {
  return vload(p);
}
template <typename A>
inline Vec<A> get(const A* p, Part part) {
  Vec<A> v{};
  std::memcpy(&v, p, static_cast<size_t>(part.n) * sizeof(A));
  return v;
}
template <typename A>
inline void put(A* p, Vec<A> v, Whole) {
  vstore(p, v);
}
template <typename A>
inline void put(A* p, Vec<A> v, Part part) {
  std::memcpy(p, &v, static_cast<size_t>(part.n) * sizeof(A));
}

typedef uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));

// Between 16 and 32 bits. GCC 12 splits and joins halves for these conversions where one or two instructions do, and
// its headers of AVX-512 warn of an uninitialised value in the forms without a mask.
#if defined(__AVX512BW__)
inline Words extend(HalfWords half) {
  return reinterpret_cast<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(half)));
}
inline HalfWords truncate(Words words) {
  return reinterpret_cast<HalfWords>(_mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(words)));
}
#elif defined(__AVX2__)
inline Words extend(HalfWords half) {
  return reinterpret_cast<Words>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(half)));
}
inline HalfWords truncate(Words words) {  // words are below 2^16
  const __m256i twice = _mm256_packus_epi32(reinterpret_cast<__m256i>(words), reinterpret_cast<__m256i>(words));
  return reinterpret_cast<HalfWords>(_mm256_castsi256_si128(_mm256_permute4x64_epi64(twice, 0x08)));
}
#else
inline Words extend(HalfWords half) {
  return __builtin_convertvector(half, Words);
}
inline HalfWords truncate(Words words) {
  return __builtin_convertvector(words, HalfWords);
}
#endif

inline Vec<float> widen(HalfWords half) {
  const Words bits = extend(half) << 16;
  Vec<float> v;
  std::memcpy(&v, &bits, sizeof(v));
  return v;
}
// Rounds as to_bf16 does.
inline HalfWords narrow(Vec<float> v) {
  Words bits;
  std::memcpy(&bits, &v, sizeof(bits));
  const Words nan = reinterpret_cast<Words>(v != v), high = bits >> 16;
  const Words rounded = (bits + 0x7fffu + (high & 1u)) >> 16;
  return truncate((rounded & ~nan) | ((high | 0x40u) & nan));
}
inline Vec<float> get(const Bf16* p, Whole) {
  HalfWords half;
  std::memcpy(&half, p, sizeof(half));
  return widen(half);
}
inline Vec<float> get(const Bf16* p, Part part) {
  HalfWords half{};
  std::memcpy(&half, p, static_cast<size_t>(part.n) * sizeof(Bf16));
  return widen(half);
}
inline void put(Bf16* p, Vec<float> v, Whole) {
  const HalfWords half = narrow(v);
  std::memcpy(p, &half, sizeof(half));
}
inline void put(Bf16* p, Vec<float> v, Part part) {
  const HalfWords half = narrow(v);
  std::memcpy(p, &half, static_cast<size_t>(part.n) * sizeof(Bf16));
}

// step(i, size) for each vector of a row of n elements; `size` says how much of the vector is in the row.
template <typename A, typename Step>
inline void for_vectors(int64_t n, Step&& step) {
  int64_t i = 0;
  for (; i + kLanes<A> <= n; i += kLanes<A>) step(i, Whole{});
  if (i < n) step(i, Part{n - i});
}

// dst [padded row] = src [n], zeros behind.
template <typename T, typename A>
inline void load_padded(const T* src, int64_t n, A* dst) {
  for_vectors<A>(n, [&](int64_t i, auto size) { vstore(dst + i, Vec<A>(get(src + i, size))); });
}
template <typename T, typename A>
inline void store_row(const A* src, int64_t n, T* dst) {
  for_vectors<A>(n, [&](int64_t i, auto size) { put(dst + i, vload(src + i), size); });
}

// Scratch memory of one thread, aligned to a vector.
template <typename A>
class Workspace {
 public:
  explicit Workspace(int64_t size)
      : data_(static_cast<A*>(::operator new (static_cast<size_t>(size) * sizeof(A), std::align_val_t{64}))) {}
  ~Workspace() { ::operator delete (data_, std::align_val_t{64}); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  A* get() const { return data_; }

 private:
  A* data_;
};

template <typename A>
inline void fill_zero(A* p, int64_t n) {
  std::memset(static_cast<void*>(p), 0, static_cast<size_t>(n) * sizeof(A));
}

// 1 / (1 + exp(-x)).
template <typename V>
inline V sigmoid(V x) {
  return 1 / (1 + vexp(-x));
}
// d silu(x) / dx, with s = sigmoid(x).
template <typename V>
inline V silu_slope(V x, V s) {
  return s * (1 + x * (1 - s));
}

// Rows that make a piece of work worth a thread's while.
inline int64_t row_grain(int64_t width) {
  return 1 + 16384 / (width + 1);
}

// Sums over all rows are taken in blocks of this many rows, then over blocks in order: the result depends on the shapes
// and not on the number of threads.
inline int64_t rows_per_block(int64_t width) {
  return 16 + 65536 / (width + 1);
}

// work(begin, end, sums) for each block of rows, where `sums` [width] starts as zeros; total[j] = scale * the blocks'
// sums. With a null total there is nothing to sum, and `sums` is null.
template <typename A, typename Work>
inline void sum_over_rows(int64_t rows, int64_t width, A scale, A* total, Work&& work) {
  const int64_t size = rows_per_block(width), blocks = (rows + size - 1) / size;
  const int64_t stride = padded<A>(width);
  const Workspace<A> partial(total ? blocks * stride : 0);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      A* sums = total ? partial.get() + b * stride : nullptr;
      if (sums) fill_zero(sums, stride);
      work(b * size, b * size + size < rows ? b * size + size : rows, sums);
    }
  });
  if (!total) return;
  for (int64_t j = 0; j < width; ++j) {
    A sum = 0;
    for (int64_t b = 0; b < blocks; ++b) sum += partial.get()[b * stride + j];
    total[j] = sum * scale;
  }
}

}  // namespace oryx::ops::ORYX_ISA
