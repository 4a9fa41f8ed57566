// Passes in pieces with a cache, and what a cache holds.

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "model/naive_model.h"
#include "model/random_case.h"
#include "ops/attention/cpu.h"

namespace oryx {
namespace {

struct Sequence {
  ModelConfig config;
  LanguageModel model;
  Tokens tokens;
  int64_t n;
  MixerSchedule schedule;
};

Sequence random_sequence(uint64_t seed, Random& random, Kind kind, int64_t most, at::ScalarType compute = at::kDouble) {
  const ModelConfig config = random_config(random, kind);
  const int64_t n = random_length(random, most);
  Tokens tokens = random_tokens(random, n, config);
  MixerSchedule schedule = random_schedule(random, n, config);
  return {config, random_model(config, seed, compute), std::move(tokens), n, std::move(schedule)};
}

at::ScalarType compute_type(uint64_t seed) {
  return std::array{at::kDouble, at::kFloat, at::kBFloat16}[seed % 3];
}

// Tokens [begin, end) of the sequence, in one pass.
at::Tensor advance(const Sequence& s, Cache& cache, int64_t begin, int64_t end) {
  return run(s.model, part(s.tokens, begin, end), s.schedule.slice(begin, end), &cache);
}

at::Tensor in_pieces(const Sequence& s, Cache& cache, const std::vector<int64_t>& pieces) {
  std::vector<at::Tensor> hidden;
  int64_t begin = 0;
  for (const int64_t piece : pieces) hidden.push_back(advance(s, cache, begin, begin + piece)), begin += piece;
  return at::cat(hidden);
}

TEST(RandomCaches, PiecesEqualOnePass) {
  for_each_case(120, [](uint64_t seed) {
    Random random{seed, 30};
    const Sequence s = random_sequence(seed, random, Kind::any, 150);
    const auto pieces = random_split(random, s.n);
    SCOPED_TRACE(describe(s.config, {s.schedule}) + "\npieces " + ::testing::PrintToString(pieces));
    Cache whole = s.model.make_cache(), cache = s.model.make_cache({.keep_inputs = random.below(2) == 0});
    const at::Tensor expected = run(s.model, s.tokens, s.schedule);
    EXPECT_TRUE(close(advance(s, whole, 0, s.n), expected, kExact));
    EXPECT_TRUE(close(in_pieces(s, cache, pieces), expected, kExact));
    EXPECT_TRUE(same_contents(cache, whole, s.config, kExact));
  });
}

TEST(RandomCaches, TokenByTokenEqualsOnePass) {
  for_each_case(40, [](uint64_t seed) {
    Random random{seed, 31};
    const Sequence s = random_sequence(seed, random, Kind::any, 80);
    SCOPED_TRACE(describe(s.config, {s.schedule}));
    Cache whole = s.model.make_cache(), cache = s.model.make_cache();
    const at::Tensor expected = advance(s, whole, 0, s.n);
    EXPECT_TRUE(close(in_pieces(s, cache, std::vector<int64_t>(s.n, 1)), expected, kExact));
    EXPECT_TRUE(same_contents(cache, whole, s.config, kExact));
  });
}

// A ragged batch in rounds, its caches at different lengths, some sequences without new tokens in a round.
TEST(RandomCaches, BatchesEqualSequencesAlone) {
  for_each_case(60, [](uint64_t seed) {
    Random random{seed, 32};
    const ModelConfig config = random_config(random);
    const LanguageModel model = random_model(config, seed);
    const auto count = 2 + random.below(3);
    std::vector<Cache> batch, alone;
    for (uint64_t b = 0; b < count; ++b) batch.push_back(model.make_cache()), alone.push_back(model.make_cache());
    for (int round = 0; round < 3; ++round) {
      std::vector<Tokens> tokens;
      std::vector<MixerSchedule> schedules;
      std::vector<Cache*> caches;
      std::vector<at::Tensor> expected;
      for (uint64_t b = 0; b < count; ++b) {
        const int64_t n = random.below(4) == 0 ? 0 : random_length(random, 70);
        tokens.push_back(random_tokens(random, n, config));
        schedules.push_back(random_schedule(random, n, config));
        caches.push_back(&batch[b]);
        if (n > 0) expected.push_back(run(model, tokens[b], schedules[b], &alone[b]));
      }
      SCOPED_TRACE(describe(config, schedules));
      const at::Tensor hidden = run(model, tokens, schedules, caches);
      if (!expected.empty()) {
        EXPECT_TRUE(close(hidden, at::cat(expected), kExact));
      }
      for (uint64_t b = 0; b < count; ++b) EXPECT_TRUE(same_contents(batch[b], alone[b], config, kExact));
    }
  });
}

// What a layer writes depends on its inputs alone: with all but the last layer's schedule fixed, the caches are the
// same bits whatever serves the last layer, in any precision. A model of one layer has nothing else.
TEST(RandomCaches, DoNotDependOnTheLastLayersSchedule) {
  for_each_case(60, [](uint64_t seed) {
    Random random{seed, 33};
    const Sequence s = random_sequence(seed, random, Kind::both, 150, compute_type(seed));
    const int64_t last = s.config.num_hidden_layers - 1;
    const auto pieces = random_split(random, s.n);
    Cache cache = s.model.make_cache();
    in_pieces(s, cache, pieces);
    std::vector<MixerSchedule> others{MixerSchedule::uniform(Mode::attention, s.n),
                                      MixerSchedule::uniform(Mode::recurrent, s.n)};
    others.push_back(random_schedule(random, s.n, s.config));
    for (const MixerSchedule& other : others) {
      Sequence changed = s;
      // An override of its own, so that the others' stays what it was.
      changed.schedule = s.schedule.with_layer(last, MixerSchedule::from_spans(other.spans(0), s.n));
      SCOPED_TRACE(describe(s.config, {s.schedule, changed.schedule}) + ::testing::PrintToString(pieces));
      Cache now = s.model.make_cache();
      in_pieces(changed, now, pieces);
      EXPECT_TRUE(same_contents(now, cache, s.config, 0));
    }
  });
}

TEST(RandomCaches, StateAtEqualsTheNaiveStateOfEveryToken) {
  for_each_case(30, [](uint64_t seed) {
    Random random{seed, 34};
    const Sequence s = random_sequence(seed, random, Kind::recurrent, 140);
    SCOPED_TRACE(describe(s.config, {s.schedule}));
    Cache cache = s.model.make_cache();
    in_pieces(s, cache, random_split(random, s.n));
    const NaiveTrace naive = NaiveModel(s.model).run(s.tokens, s.schedule);
    for (int64_t n = 0; n <= s.n; n += 1 + static_cast<int64_t>(random.below(4))) {
      const auto states = cache.state_at(n);
      ASSERT_EQ(states.size(), naive.layers.size());
      for (size_t i = 0; i < states.size(); ++i) {
        EXPECT_EQ(states[i].sizes(),
                  (std::vector<int64_t>{s.config.num_key_value_heads, s.config.head_dim, s.config.value_head_dim}));
        const at::Tensor expected = n == 0 ? states[i] * 0 : to_tensor(naive.layers[i].states[n - 1]);
        EXPECT_TRUE(close(states[i], expected, kExact)) << "layer " << i << " after " << n;
      }
    }
  });
}

// Whether the first n tokens go the same way with and without the tokens after them: attention takes few query rows (at
// most half a vector, 8 floats, of a block) by another path than many, and the recurrences one token by another than a
// chunk, which round otherwise.
bool same_path(const Sequence& s, int64_t n) {
  if (n == 1 && s.n > 1) return false;
  const int64_t block = ops::kAttentionRows, few = 8,
                group = s.config.num_attention_heads / s.config.num_key_value_heads;
  for (int64_t layer = 0; layer < s.config.num_hidden_layers; ++layer) {
    int64_t before = 0, all = 0;
    for (int64_t t = 0; t < s.n; ++t)
      if (s.schedule.at(t, layer) == Mode::attention) all += group, before += t < n ? group : 0;
    const int64_t in_prefix = before % block, in_whole = std::min(all - (before - in_prefix), block);
    if (in_prefix > 0 && in_prefix <= few && in_prefix != in_whole) return false;
  }
  return true;
}

// The state replayed after n of N tokens is, bit for bit, the one that was there when token n was written. Matrix
// products may round a row otherwise when they have other numbers of rows, so the pass over n tokens has the other N -
// n beside it as another sequence.
TEST(RandomCaches, StateAtIsTheStateThatWasWritten) {
  for_each_case(90, [&](uint64_t seed) {
    Random random{seed, 35};
    const Sequence s = random_sequence(seed, random, Kind::recurrent, 150, compute_type(seed));
    auto n = static_cast<int64_t>(random.below(s.n)) + 1;
    while (!same_path(s, n)) ++n;  // true for all N tokens
    SCOPED_TRACE(describe(s.config, {s.schedule}) + "\nafter " + std::to_string(n));
    Cache whole = s.model.make_cache(), prefix = s.model.make_cache(), rest = s.model.make_cache();
    advance(s, whole, 0, s.n);
    run(s.model, {part(s.tokens, 0, n), part(s.tokens, n, s.n)}, {s.schedule.slice(0, n), s.schedule.slice(n, s.n)},
        {&prefix, &rest});
    const Cache before = whole.clone();
    const auto states = whole.state_at(n);
    for (int64_t i = 0; i < s.config.num_hidden_layers; ++i) {
      EXPECT_EQ(whole.keys(i).scalar_type(), compute_type(seed));
      EXPECT_TRUE(at::equal(whole.keys(i).slice(0, 0, n), prefix.keys(i))) << "layer " << i;
      EXPECT_TRUE(at::equal(states[i], prefix.state(i))) << "layer " << i;
    }
    EXPECT_TRUE(same_contents(whole, before, s.config, 0));
    // What rebuild_state() and truncate() put in place is the same.
    const Cache written = prefix.clone();
    prefix.drop_state();
    EXPECT_FALSE(prefix.has_state());
    prefix.rebuild_state();
    whole.truncate(n);
    EXPECT_TRUE(same_contents(prefix, written, s.config, 0));
    EXPECT_TRUE(same_contents(whole, written, s.config, 0));
  });
}

// Written in pieces or token by token, the states agree to rounding, that of keys and values included. As the norm of
// the difference over the state's: float64 1e-12; float32 1e-4; bfloat16 2e-2, a few of its roundings, though its
// states are float32.
TEST(RandomCaches, StateAtIsCloseToStatesWrittenOtherwise) {
  double worst[3] = {0, 0, 0};
  for_each_case(60, [&](uint64_t seed) {
    Random random{seed, 38};
    const Sequence s = random_sequence(seed, random, Kind::recurrent, 130, compute_type(seed));
    const auto n = static_cast<int64_t>(random.below(s.n)) + 1;
    const auto pieces = random.below(2) ? std::vector<int64_t>(s.n, 1) : random_split(random, s.n);
    SCOPED_TRACE(describe(s.config, {s.schedule}) + "\nafter " + std::to_string(n));
    Cache whole = s.model.make_cache(), prefix = s.model.make_cache(), stepped = s.model.make_cache();
    advance(s, whole, 0, s.n);
    advance(s, prefix, 0, n);
    in_pieces(s, stepped, pieces);
    const auto replayed = whole.state_at(n), from_pieces = stepped.state_at(n);
    for (int64_t i = 0; i < s.config.num_hidden_layers; ++i)
      for (const at::Tensor& state : {replayed[i], from_pieces[i]}) {
        EXPECT_EQ(state.scalar_type(), seed % 3 == 0 ? at::kDouble : at::kFloat);
        const double error = relative_error(state, prefix.state(i));
        EXPECT_LE(error, (std::array{1e-12, 1e-4, 2e-2}[seed % 3])) << "layer " << i;
        worst[seed % 3] = std::max(worst[seed % 3], error);
      }
  });
  std::printf("largest relative error: float64 %.2g, float32 %.2g, bfloat16 %.2g\n", worst[0], worst[1], worst[2]);
}

TEST(RandomCaches, TruncatedOnesContinueLikeShorterOnes) {
  for_each_case(12, [](uint64_t seed) {
    Random random{seed, 36};
    const Sequence s = random_sequence(seed, random, Kind::any, 90);
    const Tokens more = random_tokens(random, 9, s.config);
    const MixerSchedule schedule = random_schedule(random, 9, s.config);
    SCOPED_TRACE(describe(s.config, {s.schedule, schedule}));
    Cache full = s.model.make_cache();
    in_pieces(s, full, random_split(random, s.n));
    for (int64_t n = s.n; n >= 0; --n) {
      if (random.below(3) == 0) full.truncate(n);  // sometimes one cut after another, sometimes from further on
      Cache cut = full.clone(), fresh = s.model.make_cache();
      cut.truncate(n);
      EXPECT_EQ(cut.length(), n);
      advance(s, fresh, 0, n);
      EXPECT_TRUE(same_contents(cut, fresh, s.config, kExact)) << n;
      const at::Tensor hidden = run(s.model, more, schedule, &cut);
      ASSERT_TRUE(close(hidden, run(s.model, more, schedule, &fresh), kExact)) << "after " << n << " of " << s.n;
      EXPECT_TRUE(same_contents(cut, fresh, s.config, kExact)) << n;
    }
  });
}

// Several forks of one cache and the cache itself, going on in turns, are as independent as deep copies.
TEST(RandomCaches, ForksContinueLikeCopies) {
  for_each_case(12, [](uint64_t seed) {
    Random random{seed, 38};
    const Sequence s = random_sequence(seed, random, Kind::any, 60);
    SCOPED_TRACE(describe(s.config, {s.schedule}));
    Cache root = s.model.make_cache();
    in_pieces(s, root, random_split(random, s.n));  // leaves spare room behind the tokens
    std::vector<Cache> forks{root.fork(), root.fork()}, copies{root.clone(), root.clone(), root.clone()};
    forks.push_back(root);
    for (int turn = 0; turn < 3; ++turn)
      for (size_t i = 0; i < forks.size(); ++i) {
        const Tokens more = random_tokens(random, 5, s.config);
        const MixerSchedule schedule = random_schedule(random, 5, s.config);
        ASSERT_TRUE(close(run(s.model, more, schedule, &forks[i]), run(s.model, more, schedule, &copies[i]), kExact));
      }
    for (size_t i = 0; i < forks.size(); ++i) EXPECT_TRUE(same_contents(forks[i], copies[i], s.config, kExact)) << i;
  });
}

// After keys and values, or the state, are gone, the mode that needs only the other part goes on as if nothing had
// happened, and the part that comes back is what it would have been.
TEST(RandomCaches, DroppedPartsAreNotMissed) {
  for_each_case(40, [](uint64_t seed) {
    Random random{seed, 37};
    const Sequence s = random_sequence(seed, random, Kind::both, 100);
    const int64_t n = random_length(random, 60);
    const Tokens more = random_tokens(random, n, s.config);
    SCOPED_TRACE(describe(s.config, {s.schedule}) + "\nthen " + std::to_string(n));
    Cache full = s.model.make_cache();
    advance(s, full, 0, s.n);

    const auto continued = [&](Cache& cache, Mode mode) {
      std::vector<at::Tensor> hidden;
      for (int64_t begin = 0, end; begin < n; begin = end) {
        end = std::min(n, begin + 17);
        hidden.push_back(run(s.model, part(more, begin, end), MixerSchedule::uniform(mode, end - begin), &cache));
      }
      return at::cat(hidden);
    };
    Cache whole = full.clone(), no_kv = full.clone();
    no_kv.drop_kv();
    EXPECT_FALSE(no_kv.has_kv() || no_kv.has_inputs());
    EXPECT_TRUE(no_kv.has_state());
    EXPECT_TRUE(close(continued(no_kv, Mode::recurrent), continued(whole, Mode::recurrent), 1e-12));
    EXPECT_EQ(no_kv.length(), s.n + n);
    for (int64_t i = 0; i < s.config.num_hidden_layers; ++i) {
      EXPECT_TRUE(close(no_kv.state(i), whole.state(i), 1e-12));
      EXPECT_TRUE(close(no_kv.state_at(s.n + n)[i], whole.state(i), 1e-12));
    }

    Cache both = full.clone(), no_state = full.clone();
    no_state.drop_state();
    EXPECT_TRUE(close(continued(no_state, Mode::attention), continued(both, Mode::attention), 1e-12));
    EXPECT_FALSE(no_state.has_state());
    no_state.rebuild_state();
    EXPECT_TRUE(same_contents(no_state, both, s.config, kExact));
    EXPECT_TRUE(close(continued(no_state, Mode::recurrent), continued(both, Mode::recurrent), kExact));
  });
}

}  // namespace
}  // namespace oryx
