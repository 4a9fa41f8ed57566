#include "ops/short_conv/cpu.h"

#include "ops/common/groups.h"

namespace oryx::ops::ORYX_ISA {

// A sequence with its history before it, P = [W-1 rows of state; the tokens], makes the convolution uniform:
// y[t] = act(sum_j w[j] P[t + j]). It is cut into blocks of kBlock rows and tiles of kTile channels, so that what one
// unit of work reads again stays in cache; tiles are wide, since memory is fetched ahead along a row and not from row
// to row.
static constexpr int64_t kBlock = 128, kTile = 1024;

// W pointers: in registers where W is known, else in memory.
template <typename P, int FixedWidth>
struct Pointers {
  P at[FixedWidth];
  explicit Pointers(P*) {}
};
template <typename P>
struct Pointers<P, 0> {
  P* at;
  explicit Pointers(P* memory) : at(memory) {}
};

// The blocks of all sequences, numbered in order. Each sequence has its length plus `extra` rows to cut.
class Blocks {
 public:
  Blocks(const int64_t* tokens, int64_t sequences, int64_t extra)
      : tokens_(tokens), sequences_(sequences), extra_(extra), first_(sequences + 1) {
    first_.get()[0] = 0;
    for (int64_t b = 0; b < sequences; ++b)
      first_.get()[b + 1] = first_.get()[b] + (tokens[b + 1] - tokens[b] + extra + kBlock - 1) / kBlock;
  }
  int64_t count() const { return first_.get()[sequences_]; }

  struct Block {
    int64_t sequence, begin, end;  // rows [begin, end) of that sequence
  };
  Block operator[](int64_t i) const {
    int64_t low = 0, high = sequences_;  // the last sequence whose first block is at most i
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (first_.get()[middle] <= i ? low : high) = middle;
    }
    const int64_t rows = tokens_[low + 1] - tokens_[low] + extra_, begin = (i - first_.get()[low]) * kBlock;
    return {low, begin, begin + kBlock < rows ? begin + kBlock : rows};
  }

 private:
  const int64_t* tokens_;
  int64_t sequences_, extra_;
  Workspace<int64_t> first_;
};

// Units of work that make a thread worth its while.
static int64_t unit_grain(int64_t elements, int64_t units) {
  return row_grain(units > 0 ? elements / units : 0);
}

// The weights as W rows of channels, placed, with zeros up to whole groups.
template <typename T, typename A = Arithmetic<T>>
static void weight_rows(const ShortConvArgs<T>& args, int64_t stride, A* rows) {
  fill_zero(rows, args.width * stride);
  for (int64_t c = 0; c < args.channels; ++c)
    for (int64_t j = 0; j < args.width; ++j) rows[j * stride + place<T>(c)] = args.weight[c * args.width + j];
}

// One tile of channels of one sequence: the rows of P. `FixedWidth` is W, or 0 where W is known only at run time.
template <typename T, int FixedWidth>
class Tile {
 public:
  using A = Arithmetic<T>;
  const int64_t width, history;  // W, W-1
  int64_t channels = 0;

  explicit Tile(const ShortConvArgs<T>& args)
      : width(FixedWidth ? FixedWidth : args.width),
        history(width - 1),
        args_(args),
        state_(history * kTile),
        window_(width) {}

  // Moves to a tile; rows of the state are fetched only where a block reads them.
  void set(int64_t sequence, int64_t channel, bool with_history) {
    sequence_ = sequence, channel_ = channel;
    channels = args_.channels - channel < kTile ? args_.channels - channel : kTile;
    if (!with_history) return;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t p = 0; p < history; ++p)
        state_.get()[p * kTile + c] = args_.initial_state ? args_.initial_state[state_at(c, p)] : T{};
  }
  int64_t length() const { return args_.tokens[sequence_ + 1] - args_.tokens[sequence_]; }
  // Where channel c's p-th entry is in a state [B, C, W-1].
  int64_t state_at(int64_t c, int64_t p) const { return (sequence_ * args_.channels + channel_ + c) * history + p; }
  // Where token t's tile is in an array [N, C].
  int64_t token_at(int64_t t) const { return (args_.tokens[sequence_] + t) * args_.channels + channel_; }

  // The W rows of P that token t sees.
  using Window = Pointers<const T*, FixedWidth>;
  Window window(int64_t t) {
    Window rows(window_.get());
    for (int64_t j = 0; j < (FixedWidth ? FixedWidth : width); ++j) {
      const int64_t p = t + j;
      rows.at[j] = p < history ? state_.get() + p * kTile : args_.x + token_at(p - history);
    }
    return rows;
  }
  // The convolution before its activation.
  template <typename Size>
  Group<T> convolve(const Window& rows, const A* weight, int64_t stride, int64_t i, Size size) const {
    Group<T> sum{};
    for (int64_t j = 0; j < (FixedWidth ? FixedWidth : width); ++j)
      sum += read(rows.at[j] + i, size) * read_placed<T>(weight + j * stride + i);
    return sum;
  }

 private:
  const ShortConvArgs<T>& args_;
  int64_t sequence_ = 0, channel_ = 0;
  Workspace<T> state_;
  Workspace<const T*> window_;
};

template <typename T, int FixedWidth, bool Silu>
static void forward_blocks(const ShortConvArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t stride = round_up(args.channels, kGroup<T>), tiles = (args.channels + kTile - 1) / kTile;
  const Workspace<A> weights(args.width * stride);
  weight_rows(args, stride, weights.get());
  const Blocks blocks(args.tokens, args.sequences, 0);
  const int64_t units = blocks.count() * tiles;
  parallel_for(units, unit_grain(args.tokens[args.sequences] * args.channels, units), [&](int64_t begin, int64_t end) {
    Tile<T, FixedWidth> tile(args);
    for (int64_t unit = begin; unit < end; ++unit) {
      const auto block = blocks[unit / tiles];
      const int64_t channel = unit % tiles * kTile;
      tile.set(block.sequence, channel, block.begin < tile.history);
      for (int64_t t = block.begin; t < block.end; ++t) {
        const auto rows = tile.window(t);
        const A* weight = weights.get() + channel;
        T* y = args.y + tile.token_at(t);
        for_groups<T>(tile.channels, [&](int64_t i, auto size) {
          prefetch(rows.at[tile.history] + i);
          Group<T> sum = tile.convolve(rows, weight, stride, i, size);
          if constexpr (Silu) sum *= sigmoid(sum);
          write(y + i, sum, size);
        });
      }
    }
  });
}

// The last W-1 rows of P.
template <typename T>
static void final_states(const ShortConvArgs<T>& args) {
  const int64_t history = args.width - 1, channels = args.channels;
  if (history == 0) return;
  parallel_for(args.sequences, row_grain(channels * history), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t length = args.tokens[b + 1] - args.tokens[b];
      const T* x = args.x + args.tokens[b] * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const T* before = args.initial_state ? args.initial_state + (b * channels + c) * history : nullptr;
        T* after = args.final_state + (b * channels + c) * history;
        for (int64_t i = 0; i < history; ++i) {
          const int64_t p = length + i;
          after[i] = p >= history ? x[(p - history) * channels + c] : before ? before[p] : T{};
        }
      }
    }
  });
}

// The gradient d[t] before the activation of the last W tokens of one tile, in a ring, and what follows from it:
// grad_P[p] = sum_j w[j] d[p - j] (+ grad_final), grad_w[j] = sum_t d[t] P[t + j].
template <typename T, int FixedWidth, bool Silu>
class Gradient {
 public:
  using A = Arithmetic<T>;
  Gradient(const ShortConvArgs<T>& args, const A* weights, int64_t stride)
      : args_(args),
        weights_(weights),
        stride_(stride),
        tile_(args),
        ring_(tile_.width * kTile),
        row_(kTile),
        behind_(tile_.width) {}

  // Writes rows [begin, end) of grad_P; adds what its tokens give to `sums` [W, stride] (null: not wanted).
  void run(int64_t sequence, int64_t begin, int64_t end, int64_t channel, A* sums) {
    const int64_t history = tile_.history, first = begin > history ? begin - history : 0;
    tile_.set(sequence, channel, first < history);
    fill_zero(ring_.get(), tile_.width * kTile);
    for (int64_t t = first; t < end; ++t) {
      A* d = ring_.get() + t % tile_.width * kTile;
      if (t < tile_.length() && args_.grad_y)
        token(t, channel, d, t >= begin ? sums : nullptr);
      else
        fill_zero(d, kTile);
      if (t >= begin) emit(t, channel);
    }
  }

 private:
  void token(int64_t t, int64_t channel, A* d, A* sums) {
    const auto rows = tile_.window(t);
    const A* weight = weights_ + channel;
    const int64_t stride = stride_, width = FixedWidth ? FixedWidth : tile_.width;
    const T* grad_y = args_.grad_y + tile_.token_at(t);
    for_groups<T>(tile_.channels, [&](int64_t i, auto size) {
      prefetch(grad_y + i), prefetch(rows.at[width - 1] + i);
      Group<T> grad = read(grad_y + i, size);
      if constexpr (Silu) {
        const Group<T> sum = tile_.convolve(rows, weight, stride, i, size);
        grad *= silu_slope(sum, sigmoid(sum));
      }
      write_placed<T>(d + i, grad);
      if (!sums) return;
      for (int64_t j = 0; j < (FixedWidth ? FixedWidth : width); ++j) {
        A* to = sums + j * stride + channel + i;
        write_placed<T>(to, read_placed<T>(to) + grad * read(rows.at[j] + i, size));
      }
    });
  }

  void emit(int64_t p, int64_t channel) {
    const int64_t width = FixedWidth ? FixedWidth : tile_.width, history = width - 1, n = tile_.channels;
    const bool to_state = p < history;
    if (to_state ? !args_.grad_initial : !args_.grad_x) return;
    A* row = row_.get();
    const A* weight = weights_ + channel;
    const int64_t stride = stride_;
    Pointers<const A*, FixedWidth> behind(behind_.get());  // d[p - j]
    for (int64_t j = 0; j < (FixedWidth ? FixedWidth : width); ++j)
      behind.at[j] = ring_.get() + (p + width - j) % width * kTile;
    for_groups<T>(n, [&](int64_t i, auto) {
      Group<T> sum{};
      for (int64_t j = 0; j < (FixedWidth ? FixedWidth : width); ++j)
        sum += read_placed<T>(behind.at[j] + i) * read_placed<T>(weight + j * stride + i);
      write_placed<T>(row + i, sum);
    });
    if (p >= tile_.length() && args_.grad_final)
      for (int64_t c = 0; c < n; ++c)
        row[place<T>(c)] += load<A>(args_.grad_final + tile_.state_at(c, p - tile_.length()));
    if (to_state) {
      for (int64_t c = 0; c < n; ++c) store(args_.grad_initial + tile_.state_at(c, p), row[place<T>(c)]);
    } else {
      T* grad_x = args_.grad_x + tile_.token_at(p - history);
      for_groups<T>(n, [&](int64_t i, auto size) { write(grad_x + i, read_placed<T>(row + i), size); });
    }
  }

  const ShortConvArgs<T>& args_;
  const A* weights_;
  int64_t stride_;
  Tile<T, FixedWidth> tile_;
  Workspace<A> ring_, row_;
  Workspace<const A*> behind_;
};

template <typename T, int FixedWidth, bool Silu>
static void backward_blocks(const ShortConvArgs<T>& args) {
  using A = Arithmetic<T>;
  const int64_t width = args.width, stride = round_up(args.channels, kGroup<T>),
                tiles = (args.channels + kTile - 1) / kTile;
  const Workspace<A> weights(width * stride);
  weight_rows(args, stride, weights.get());
  const Blocks blocks(args.tokens, args.sequences, width - 1);
  // The weight's gradient is summed in groups of blocks that depend on the shapes alone, not on the number of threads.
  const int64_t groups = blocks.count() < 64 ? blocks.count() : 64, size = width * stride;
  const Workspace<A> sums(args.grad_weight ? groups * size : 0);
  if (args.grad_weight) fill_zero(sums.get(), groups * size);
  const int64_t units = groups * tiles;
  parallel_for(units, unit_grain(args.tokens[args.sequences] * args.channels, units), [&](int64_t begin, int64_t end) {
    Gradient<T, FixedWidth, Silu> gradient(args, weights.get(), stride);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t group = unit / tiles, channel = unit % tiles * kTile;
      for (int64_t i = group * blocks.count() / groups; i < (group + 1) * blocks.count() / groups; ++i) {
        const auto block = blocks[i];
        gradient.run(block.sequence, block.begin, block.end, channel,
                     args.grad_weight ? sums.get() + group * size : nullptr);
      }
    }
  });
  if (!args.grad_weight) return;
  for (int64_t c = 0; c < args.channels; ++c) {
    for (int64_t j = 0; j < width; ++j) {
      A sum = 0;
      for (int64_t group = 0; group < groups; ++group) sum += sums.get()[group * size + j * stride + place<T>(c)];
      args.grad_weight[c * width + j] = sum;
    }
  }
}

template <typename T>
void short_conv_forward(const ShortConvArgs<T>& args) {
  if (args.width == 4)
    args.silu ? forward_blocks<T, 4, true>(args) : forward_blocks<T, 4, false>(args);
  else
    args.silu ? forward_blocks<T, 0, true>(args) : forward_blocks<T, 0, false>(args);
  final_states(args);
}

template <typename T>
void short_conv_backward(const ShortConvArgs<T>& args) {
  if (args.width == 4)
    args.silu ? backward_blocks<T, 4, true>(args) : backward_blocks<T, 4, false>(args);
  else
    args.silu ? backward_blocks<T, 0, true>(args) : backward_blocks<T, 0, false>(args);
}

#define ORYX_INSTANTIATE(T)                                     \
  template void short_conv_forward<T>(const ShortConvArgs<T>&); \
  template void short_conv_backward<T>(const ShortConvArgs<T>&);
ORYX_INSTANTIATE(float)
ORYX_INSTANTIATE(double)
ORYX_INSTANTIATE(Bf16)
#undef ORYX_INSTANTIATE

}  // namespace oryx::ops::ORYX_ISA
