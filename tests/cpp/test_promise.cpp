// One answer: the same bits for every ISA, thread count, batch split, chunking in time, ragged or alone, layout and
// workspace. All comparisons are exact. Must not include kernels.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "support.h"

namespace gruc::test {
namespace {

// Networks that between them take every path: both resets, both updates, stacks, directions, activations, clip,
// sizes around the block of 16 and several blocks.
std::vector<gruc_spec> networks(bool forward_only = false) {
  std::vector<gruc_spec> specs = {make_spec(3, 5), make_spec(33, 100), make_spec(17, 31, 3), make_spec(1, 16, 2),
                                  make_spec(60, 100)};
  gruc_spec before = make_spec(15, 33, 2);
  before.reset = GRUC_RESET_BEFORE;
  before.update = GRUC_UPDATE_TAKE;
  specs.push_back(before);
  gruc_spec odd = make_spec(16, 47);
  odd.clip = 0.9f;
  odd.gate_activation[0] = {GRUC_HARD_SIGMOID, 0.2f, 0.5f};
  odd.activation[0] = {GRUC_SOFTSIGN, 0.0f, 0.0f};
  specs.push_back(odd);
  if (forward_only) return specs;
  specs.push_back(make_spec(7, 20, 1, GRUC_REVERSE));
  specs.push_back(make_spec(7, 49, 2, GRUC_BIDIRECTIONAL));
  specs.push_back(make_spec(97, 97, 2, GRUC_BIDIRECTIONAL));
  gruc_spec both = make_spec(31, 17, 3, GRUC_BIDIRECTIONAL);
  both.reset = GRUC_RESET_BEFORE;
  both.activation[1] = {GRUC_ELU, 0.7f, 0.0f};
  specs.push_back(both);
  return specs;
}

class Promise : public IsaTest {};

// Calls body(network, problem) for every network and some batches, whole and ragged.
template <class Body>
void for_each_case(Body body, int64_t steps = 23) {
  uint64_t seed = 1;
  for (const gruc_spec& spec : networks())
    for (const int64_t batch : {1, 2, 3, 9})
      for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
        Random random(seed++);
        const Params params(spec, random, 1.5);
        const Network network(spec, params);
        const Problem problem = make_problem(spec, steps, batch, random, lengths, Start::kRandom);
        SCOPED_TRACE(::testing::Message() << "I " << spec.input_size << " H " << spec.hidden_size << " B " << batch
                                          << (lengths == Lengths::kRagged ? " ragged" : ""));
        body(network, params, problem);
      }
}

// One row of a large network carries its input's product along in groups of steps; in a batch of three it does not.
// With as many threads as the library would take, too.
TEST_P(Promise, OneRowOfALargeNetwork) {
  for (const int64_t hidden : {130, 310})
    for (const bool every_thread : {true, false}) {
      const Threads threads(every_thread ? "all" : nullptr);
      Random random(5);
      const gruc_spec spec = make_spec(hidden - 10, hidden);
      const Network network(spec, Params(spec, random));
      const Problem p = make_problem(spec, 61, 3, random, Lengths::kWhole, Start::kRandom);
      const Result all = run(network, p);
      for (const int count : {1, 2, 3}) {
        EXPECT_TRUE(same_bits(run(network, p, count), all));
        EXPECT_TRUE(same_bits(run(network, p.row(spec, 1), count), all.row(spec, 61, 3, 1, 61))) << count << " threads";
      }
    }
}

TEST_P(Promise, IsaDoesNotMatter) {
  for_each_case([](const Network& network, const Params& params, const Problem& p) {
    const Result here = run(network, p);
    const ForcedIsa portable("portable");
    EXPECT_TRUE(same_bits(here, run(Network(network.spec(), params), p)));
  });
}

TEST_P(Promise, ThreadsDoNotMatter) {
  if (!CpuCount::available()) GTEST_SKIP() << "needs more CPUs than this machine has";
  const CpuCount cpus(8);
  ASSERT_EQ(gruc_max_threads(), 8);
  for_each_case(
      [](const Network& network, const Params&, const Problem& p) {
        const Result one = run(network, p);
        for (const int threads : {2, 3, 5}) EXPECT_TRUE(same_bits(run(network, p, threads), one)) << threads;
      },
      9);
}

// Members of a team have chunks of time of their own, cut where each one's memory is full.
TEST_P(Promise, ThreadsDoNotMatterOverSeveralChunks) {
  if (!CpuCount::available()) GTEST_SKIP() << "needs more CPUs than this machine has";
  const CpuCount cpus(8);
  gruc_spec before = make_spec(200, 70, 2, GRUC_BIDIRECTIONAL);
  before.reset = GRUC_RESET_BEFORE;
  Random random(50);
  for (const gruc_spec& spec : {make_spec(33, 100), before}) {
    const Network network(spec, Params(spec, random, 1.5));
    for (const int64_t batch : {1, 12}) {
      const Problem p = make_problem(spec, 1100 / batch, batch, random, Lengths::kRagged, Start::kRandom);
      const Result one = run(network, p);
      for (const int threads : {2, 5}) EXPECT_TRUE(same_bits(run(network, p, threads), one)) << threads;
    }
  }
}

TEST_P(Promise, RowAloneOrInABatch) {
  for_each_case([](const Network& network, const Params&, const Problem& p) {
    const Result all = run(network, p);
    for (int64_t b = 0; b < p.batch; ++b) {
      const Problem alone = p.row(network.spec(), b);
      EXPECT_TRUE(same_bits(run(network, alone), all.row(network.spec(), p.steps, p.batch, b, alone.steps))) << b;
    }
  });
}

TEST_P(Promise, OrderOfRowsDoesNotMatter) {
  for_each_case([](const Network& network, const Params&, const Problem& p) {
    const gruc_spec& spec = network.spec();
    Problem turned = p;  // rows in reverse
    for (int64_t b = 0; b < p.batch; ++b) {
      const int64_t from = p.batch - 1 - b;
      for (int64_t t = 0; t < p.steps; ++t)
        std::copy_n(&p.x[(t * p.batch + from) * spec.input_size], spec.input_size,
                    &turned.x[(t * p.batch + b) * spec.input_size]);
      for (int64_t layer = 0; layer < spec.num_layers * directions_of(spec); ++layer)
        std::copy_n(&p.h0[(layer * p.batch + from) * spec.hidden_size], spec.hidden_size,
                    &turned.h0[(layer * p.batch + b) * spec.hidden_size]);
      if (!p.lengths.empty()) turned.lengths[b] = p.lengths[from];
    }
    const Result a = run(network, p), z = run(network, turned);
    for (int64_t b = 0; b < p.batch; ++b)
      EXPECT_TRUE(same_bits(a.row(spec, p.steps, p.batch, b, p.steps),
                            z.row(spec, p.steps, p.batch, p.batch - 1 - b, p.steps)));
  });
}

TEST_P(Promise, TimeMayBeCut) {
  for (const gruc_spec& spec : networks(true)) {
    Random random(40);
    const Network network(spec, Params(spec, random, 1.5));
    const int64_t batch = 3;
    const Problem whole = make_problem(spec, 29, batch, random, Lengths::kWhole, Start::kRandom);
    const Result expected = run(network, whole);
    Result got{{}, whole.h0};
    for (int64_t begin = 0; begin < whole.steps;) {
      const int64_t steps = std::min(random.integer(0, 7), whole.steps - begin);
      Problem part;
      part.steps = steps;
      part.batch = batch;
      part.h0 = got.h_n;
      const auto at = whole.x.begin() + begin * batch * spec.input_size;
      part.x.assign(at, at + steps * batch * spec.input_size);
      Result r = run(network, part);
      got.y.insert(got.y.end(), r.y.begin(), r.y.end());
      got.h_n = std::move(r.h_n);
      begin += steps;
    }
    EXPECT_TRUE(same_bits(got, expected));
  }
}

// Blocks of all lengths, longer and shorter than what a stream processes at once.
TEST_P(Promise, StepsAndBlocksOfAStreamAreTheSequence) {
  for (const gruc_spec& spec : networks(true))
    for (const int64_t batch : {1, 4, 17}) {
      Random random(41);
      const Network network(spec, Params(spec, random, 1.5));
      const Problem p = make_problem(spec, 61, batch, random, Lengths::kWhole, Start::kRandom);
      const Result expected = run(network, p);
      gruc_state *stepping = nullptr, *processing = nullptr;
      ASSERT_EQ(gruc_state_create(network.weights(), batch, &stepping), GRUC_OK);
      ASSERT_EQ(gruc_state_create(network.weights(), batch, &processing), GRUC_OK);
      ASSERT_EQ(gruc_state_set(stepping, p.h0.data()), GRUC_OK);
      ASSERT_EQ(gruc_state_set(processing, p.h0.data()), GRUC_OK);
      Result steps = expected, blocks = expected;
      for (Result* r : {&steps, &blocks}) std::fill(r->y.begin(), r->y.end(), NAN);
      const int64_t in = batch * spec.input_size, out = batch * spec.hidden_size;
      for (int64_t t = 0; t < p.steps; ++t) ASSERT_EQ(gruc_step(stepping, &p.x[t * in], &steps.y[t * out]), GRUC_OK);
      for (int64_t t = 0; t < p.steps;) {
        const int64_t count = std::min(random.integer(0, 40), p.steps - t);
        ASSERT_EQ(gruc_process(processing, count, p.x.data() + t * in, blocks.y.data() + t * out), GRUC_OK);
        t += count;
      }
      ASSERT_EQ(gruc_state_get(stepping, steps.h_n.data()), GRUC_OK);
      ASSERT_EQ(gruc_state_get(processing, blocks.h_n.data()), GRUC_OK);
      EXPECT_TRUE(same_bits(steps, expected));
      EXPECT_TRUE(same_bits(blocks, expected));
      gruc_state_destroy(stepping);
      gruc_state_destroy(processing);
    }
}

TEST_P(Promise, LengthsOfWholeRowsAreNoLengths) {
  for_each_case([](const Network& network, const Params&, const Problem& p) {
    if (!p.lengths.empty()) return;
    Problem counted = p;
    counted.lengths.assign(static_cast<size_t>(p.batch), p.steps);
    EXPECT_TRUE(same_bits(run(network, counted), run(network, p)));
  });
}

// Batch-first arrays, and arrays with gaps, which must stay as they are.
TEST_P(Promise, StridesDoNotMatter) {
  for_each_case([](const Network& network, const Params&, const Problem& p) {
    const gruc_spec& spec = network.spec();
    const Result expected = run(network, p);
    const int64_t in = spec.input_size, out = width_of(spec);
    struct Layout {
      int64_t x_step, x_batch, y_step, y_batch;
    };
    const Layout layouts[] = {{in, p.steps * in, out, p.steps * out},
                              {p.batch * (in + 3) + 5, in + 3, p.batch * (out + 1) + 7, out + 1}};
    for (const Layout& l : layouts) {
      std::vector<float> x(static_cast<size_t>(p.steps * l.x_step + p.batch * l.x_batch + in), NAN);
      std::vector<float> y(static_cast<size_t>(p.steps * l.y_step + p.batch * l.y_batch + out), 77.0f);
      for (int64_t t = 0; t < p.steps; ++t)
        for (int64_t b = 0; b < p.batch; ++b)
          std::copy_n(&p.x[(t * p.batch + b) * in], in, &x[t * l.x_step + b * l.x_batch]);
      Result got = run(network, p, 1, [&](gruc_sequence& s) {
        s.x = x.data();
        s.x_step_stride = l.x_step;
        s.x_batch_stride = l.x_batch;
        s.y = y.data();
        s.y_step_stride = l.y_step;
        s.y_batch_stride = l.y_batch;
      });
      int64_t gaps = static_cast<int64_t>(y.size());
      for (int64_t t = 0; t < p.steps; ++t)
        for (int64_t b = 0; b < p.batch; ++b) {
          float* from = &y[t * l.y_step + b * l.y_batch];
          std::copy_n(from, out, &got.y[(t * p.batch + b) * out]);
          std::fill_n(from, out, 77.0f);
          gaps -= out;
        }
      EXPECT_TRUE(same_bits(got, expected));
      EXPECT_GE(gaps, 0);
      EXPECT_EQ(std::count(y.begin(), y.end(), 77.0f), static_cast<int64_t>(y.size())) << "a gap was written";
    }
  });
}

// x, h0, y and h_n at addresses that are multiples of 4 alone.
TEST_P(Promise, AlignmentDoesNotMatter) {
  for_each_case([](const Network& network, const Params&, const Problem& p) {
    const Result expected = run(network, p);
    Problem shifted = p;
    shifted.x.insert(shifted.x.begin(), NAN);
    shifted.h0.insert(shifted.h0.begin(), NAN);
    std::vector<float> y(expected.y.size() + 1), h_n(expected.h_n.size() + 1);
    run(network, shifted, 1, [&](gruc_sequence& s) {
      ++s.x;
      ++s.h0;
      s.y = y.data() + 1;
      s.h_n = h_n.data() + 1;
    });
    EXPECT_TRUE(same_bits(std::vector<float>(y.begin() + 1, y.end()), expected.y));
    EXPECT_TRUE(same_bits(std::vector<float>(h_n.begin() + 1, h_n.end()), expected.h_n));
  });
}

// The caller's workspace is as good as the library's own, whatever it holds, and nothing is written past it.
TEST_P(Promise, WorkspaceOfTheCaller) {
  const CpuCount cpus(8);
  for_each_case(
      [](const Network& network, const Params&, const Problem& p) {
        const Result expected = run(network, p);
        for (const int threads : {1, 2, 5})
          for (const int fill : {0x00, 0xff}) {
            std::vector<std::byte> memory;
            std::byte* end = nullptr;
            const Result got = run(network, p, threads, [&](gruc_sequence& s) {
              size_t bytes = 0;
              ASSERT_EQ(gruc_forward_workspace(network.weights(), &s, &bytes), GRUC_OK);
              memory.assign(bytes + 128 + 4096, static_cast<std::byte>(fill));
              std::byte* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
              end = aligned + bytes;
              std::memset(end, 0x5a, 4096);
              s.workspace = aligned;
              s.workspace_size = bytes;
            });
            EXPECT_TRUE(same_bits(got, expected)) << threads << " threads";
            EXPECT_EQ(std::count(end, end + 4096, std::byte{0x5a}), 4096) << threads << " threads";
          }
      },
      5);
}

TEST_P(Promise, OutputsMayBeLeftOut) {
  for_each_case([](const Network& network, const Params&, const Problem& p) {
    const Result both = run(network, p);
    const Result without_y = run(network, p, 1, [](gruc_sequence& s) { s.y = nullptr; });
    const Result without_h_n = run(network, p, 1, [](gruc_sequence& s) { s.h_n = nullptr; });
    EXPECT_TRUE(same_bits(without_y.h_n, both.h_n));
    EXPECT_TRUE(same_bits(without_h_n.y, both.y));
  });
}

// No h0 is zeros, for sequences and streams.
TEST_P(Promise, NoInitialStateIsZeros) {
  for_each_case([](const Network& network, const Params&, const Problem& p) {
    Problem zeros = p, none = p;
    std::fill(zeros.h0.begin(), zeros.h0.end(), 0.0f);
    none.h0.clear();
    EXPECT_TRUE(same_bits(run(network, zeros), run(network, none)));
  });
}
GRUC_FOR_EVERY_ISA(Promise);

}  // namespace
}  // namespace gruc::test
