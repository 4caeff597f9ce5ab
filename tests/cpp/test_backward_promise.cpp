// One answer in training: the same bits for every ISA, thread count, kind of tape, layout, workspace and choice of
// gradients. All comparisons are exact. Must not include kernels.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "training.h"

namespace gruc::test {
namespace {

class BackwardPromise : public IsaTest {};

struct Given {
  const Network& network;
  const Params& params;
  const Problem& problem;
  const Incoming& incoming;
  How how;  // with dropout in every other case
};

// Calls body for every network and some batches, whole and ragged.
template <class Body>
void for_each_case(Body body, int64_t steps = 7) {
  uint64_t seed = 1;
  for (const gruc_spec& spec : training_networks())
    for (const int64_t batch : {1, 2, 9})
      for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
        Random random(seed++);
        const Params params(spec, random, 1.5);
        const Network network(spec, params);
        const Problem problem = make_problem(spec, steps, batch, random, lengths, Start::kRandom);
        const Incoming incoming = make_incoming(spec, problem, random);
        How how;
        how.dropout = batch % 2 == 0 ? 0.3f : 0.0f;
        how.seed = random.bits();
        SCOPED_TRACE(describe(spec, problem));
        body(Given{network, params, problem, incoming, how});
      }
}

Gradients all_of(const Given& g, const How& how) { return gradients(g.network, g.problem, how, g.incoming); }

// Taping changes no bit of the outputs, and neither does how much is taped.
TEST_P(BackwardPromise, TapingDoesNotMatter) {
  for_each_case([](const Given& g) {
    How how;
    const Result expected = run(g.network, g.problem);
    EXPECT_TRUE(same_bits(train(g.network, g.problem, how).result, expected));
    how.recompute = true;
    EXPECT_TRUE(same_bits(train(g.network, g.problem, how).result, expected));
    how.sequence = [](gruc_sequence& s) { s.y = s.h_n = nullptr; };  // neither output need be wanted
    EXPECT_TRUE(same_bits(gradients(g.network, g.problem, how, g.incoming), all_of(g, How{})));
  });
}

TEST_P(BackwardPromise, IsaDoesNotMatter) {
  for_each_case([](const Given& g) {
    const Result result = train(g.network, g.problem, g.how).result;
    const Gradients here = all_of(g, g.how);
    const ForcedIsa portable("portable");
    const Network other(g.network.spec(), g.params);
    EXPECT_TRUE(same_bits(train(other, g.problem, g.how).result, result));
    EXPECT_TRUE(same_bits(gradients(other, g.problem, g.how, g.incoming), here));
  });
}

TEST_P(BackwardPromise, RecomputingDoesNotMatter) {
  for_each_case([](const Given& g) {
    How how = g.how;
    how.recompute = true;
    EXPECT_TRUE(same_bits(train(g.network, g.problem, how).result, train(g.network, g.problem, g.how).result));
    EXPECT_TRUE(same_bits(all_of(g, how), all_of(g, g.how)));
  });
}

TEST_P(BackwardPromise, ThreadsDoNotMatter) {
  if (!CpuCount::available()) GTEST_SKIP() << "needs more CPUs than this machine has";
  const CpuCount cpus(8);
  for_each_case(
      [](const Given& g) {
        const Result result = train(g.network, g.problem, g.how).result;
        const Gradients one = all_of(g, g.how);
        for (const int threads : {2, 3, 5}) {
          How how = g.how;
          how.threads = threads;
          how.recompute = threads == 3;
          EXPECT_TRUE(same_bits(train(g.network, g.problem, how).result, result)) << threads;
          EXPECT_TRUE(same_bits(all_of(g, how), one)) << threads;
        }
      },
      5);
}

// Several chunks of steps, and a step of more rows than a chunk has.
TEST_P(BackwardPromise, ThreadsDoNotMatterOverSeveralChunks) {
  if (!CpuCount::available()) GTEST_SKIP() << "needs more CPUs than this machine has";
  const CpuCount cpus(8);
  Random random(50);
  gruc_spec before = make_spec(10, 34, 2, GRUC_BIDIRECTIONAL);
  before.reset = GRUC_RESET_BEFORE;
  for (const gruc_spec& spec : {make_spec(25, 34), before})
    for (const int64_t batch : {1, 12, 530}) {
      const Network network(spec, Params(spec, random, 1.5));
      const Problem p =
          make_problem(spec, std::max<int64_t>(2, 530 / batch), batch, random, Lengths::kWhole, Start::kRandom);
      const Incoming incoming = make_incoming(spec, p, random);
      const Gradients one = gradients(network, p, {}, incoming);
      for (const int threads : {2, 5}) {
        How how;
        how.threads = threads;
        how.recompute = threads == 5;
        EXPECT_TRUE(same_bits(gradients(network, p, how, incoming), one)) << describe(spec, p) << " " << threads;
      }
    }
}

// A row's own gradients, of x and h0, are those of the row alone.
TEST_P(BackwardPromise, RowAloneOrInABatch) {
  for_each_case([](const Given& g) {
    const gruc_spec& spec = g.network.spec();
    const Problem& p = g.problem;
    const Gradients all = all_of(g, How{});
    for (int64_t b = 0; b < p.batch; ++b) {
      const Problem alone = p.row(spec, b);
      const Result incoming = Result{g.incoming.dy, g.incoming.dh_n}.row(spec, p.steps, p.batch, b, alone.steps);
      const Gradients got = gradients(g.network, alone, {}, Incoming{incoming.y, incoming.h_n});
      Problem at = p;  // x's gradient has x's shape
      at.x = all.x;
      at.h0 = all.h0;
      const Problem expected = at.row(spec, b);
      EXPECT_TRUE(same_bits(got.x, expected.x)) << b;
      EXPECT_TRUE(same_bits(got.h0, expected.h0)) << b;
    }
  });
}

// Every gradient is added to what is there: by one addition, but for x's, which each direction adds to. Beyond a row's
// length nothing is touched.
TEST_P(BackwardPromise, GradientsAccumulate) {
  for_each_case([](const Given& g) {
    const gruc_spec& spec = g.network.spec();
    Gradients gradient = all_of(g, g.how);
    Gradients start = zeros(spec, g.problem), expected = start;
    Random random(60);
    const auto added = gradient.arrays(), before = start.arrays(), after = expected.arrays();
    for (size_t i = 0; i < before.size(); ++i) {
      *before[i] = random.normals(static_cast<int64_t>(before[i]->size()), 3.0);
      for (size_t j = 0; j < before[i]->size(); ++j) (*after[i])[j] = (*before[i])[j] + (*added[i])[j];
    }
    const Taped taped = train(g.network, g.problem, g.how);
    Gradients got = gradients(g.network, g.problem, g.how, taped, g.incoming, start);
    for (size_t b = 0; b < g.problem.lengths.size(); ++b)
      for (int64_t t = g.problem.lengths[b]; t < g.problem.steps; ++t) {
        const int64_t frame = t * g.problem.batch + static_cast<int64_t>(b);
        for (int64_t i = frame * spec.input_size; i < (frame + 1) * spec.input_size; ++i)
          ASSERT_EQ(bits_of_float(got.x[i]), bits_of_float(start.x[i])) << "row " << b << " step " << t;
      }
    for (size_t i = 0; spec.direction == GRUC_BIDIRECTIONAL && i < got.x.size(); ++i) {
      ASSERT_NEAR(got.x[i], expected.x[i], 0x1p-21 * (1.0 + std::fabs(start.x[i]))) << i;
      got.x[i] = expected.x[i];
    }
    EXPECT_TRUE(same_bits(got, expected));
  });
}

// Each gradient alone, and any choice of them: the same bits as among all.
TEST_P(BackwardPromise, GradientsMayBeLeftOut) {
  for_each_case(
      [](const Given& g) {
        const gruc_spec& spec = g.network.spec();
        Gradients all = all_of(g, g.how);
        const Taped taped = train(g.network, g.problem, g.how);
        const size_t count = all.arrays().size();
        Random random(61);
        const auto expect_some = [&](const auto& wanted) {
          Gradients into = zeros(spec, g.problem), expected = all;
          for (size_t i = 0; i < count; ++i)
            if (!wanted(i)) {
              into.arrays()[i]->clear();
              expected.arrays()[i]->clear();
            }
          EXPECT_TRUE(same_bits(gradients(g.network, g.problem, g.how, taped, g.incoming, into), expected));
        };
        for (size_t alone = 0; alone < count; ++alone) expect_some([=](size_t i) { return i == alone; });
        for (int i = 0; i < 4; ++i) expect_some([&](size_t) { return random.integer(0, 1) != 0; });
        Gradients inputs = zeros(spec, g.problem);  // params itself may be NULL
        inputs.params.clear();
        inputs = gradients(g.network, g.problem, g.how, taped, g.incoming, inputs);
        EXPECT_TRUE(same_bits(inputs.x, all.x));
        EXPECT_TRUE(same_bits(inputs.h0, all.h0));
      },
      5);
}

// Backward only reads the tape: it is as it was, and serves again, with other gradients coming in.
TEST_P(BackwardPromise, TapeMayBeUsedAgain) {
  for_each_case([](const Given& g) {
    const gruc_spec& spec = g.network.spec();
    for (const bool recompute : {false, true}) {
      How how = g.how;
      how.recompute = recompute;
      const Taped taped = train(g.network, g.problem, how);
      const auto before = taped.tape.contents();
      const Gradients first = gradients(g.network, g.problem, how, taped, g.incoming, zeros(spec, g.problem));
      EXPECT_TRUE(taped.tape.contents() == before) << "the tape was written to";
      gradients(g.network, g.problem, how, taped, Incoming{}, zeros(spec, g.problem));
      EXPECT_TRUE(same_bits(gradients(g.network, g.problem, how, taped, g.incoming, zeros(spec, g.problem)), first));
      EXPECT_TRUE(taped.tape.intact());
    }
  });
}

// The caller's workspace is as good as the library's own, whatever it holds, and nothing is written past it.
TEST_P(BackwardPromise, WorkspaceOfTheCaller) {
  const CpuCount cpus(8);
  for_each_case(
      [](const Given& g) {
        const Gradients expected = all_of(g, g.how);
        for (const bool recompute : {false, true})
          for (const int threads : {1, 2, 5})
            for (const unsigned char fill : {0x00, 0xff}) {
              if (fill == 0x00 && threads > 1) continue;
              How how = g.how;
              how.recompute = recompute;
              how.threads = threads;
              const Taped taped = train(g.network, g.problem, how);
              Guarded workspace(0);
              how.gradients = [&](gruc_gradients& gradients) {
                gruc_sequence s;
                ASSERT_EQ(gruc_sequence_init(g.network.weights(), g.problem.steps, g.problem.batch, &s), GRUC_OK);
                s.threads = threads;
                s.lengths = g.problem.lengths.empty() ? nullptr : g.problem.lengths.data();
                const gruc_training training = how.training();
                size_t bytes = 0;
                ASSERT_EQ(gruc_backward_workspace(g.network.weights(), &s, &training, &gradients, &bytes), GRUC_OK)
                    << gruc_last_error();
                workspace = Guarded(bytes, fill);
                gradients.workspace = workspace.data();
                gradients.workspace_size = bytes;
              };
              const Gradients got =
                  gradients(g.network, g.problem, how, taped, g.incoming, zeros(g.network.spec(), g.problem));
              EXPECT_TRUE(same_bits(got, expected)) << threads << " threads";
              EXPECT_TRUE(workspace.intact()) << threads << " threads: written past the workspace";
            }
      },
      5);
}

// Stacks whose layers differ in their inputs' size share one scratch, which must be enough for each.
TEST_P(BackwardPromise, StacksOfUnequalLayersStayInTheirWorkspace) {
  Random random(62);
  for (const auto& [input, hidden] : {std::pair(100, 33), std::pair(1000, 16), std::pair(3, 60), std::pair(2000, 1)})
    for (const int64_t steps : {1, 100, 520}) {
      if (input >= 1000 && steps > 100) continue;
      const gruc_spec spec = make_spec(input, hidden, 3);
      const Network network(spec, Params(spec, random));
      const Problem p = make_problem(spec, steps, 1, random);
      const Incoming incoming = make_incoming(spec, p, random);
      const Gradients expected = gradients(network, p, {}, incoming);
      Guarded workspace(0);
      How how;
      how.gradients = [&](gruc_gradients& g) {
        gruc_sequence s;
        ASSERT_EQ(gruc_sequence_init(network.weights(), steps, 1, &s), GRUC_OK);
        const gruc_training training = how.training();
        size_t bytes = 0;
        ASSERT_EQ(gruc_backward_workspace(network.weights(), &s, &training, &g, &bytes), GRUC_OK);
        workspace = Guarded(bytes);
        g.workspace = workspace.data();
        g.workspace_size = bytes;
      };
      EXPECT_TRUE(same_bits(gradients(network, p, how, incoming), expected)) << describe(spec, p);
      EXPECT_TRUE(workspace.intact()) << describe(spec, p);
    }
}

// Arrays with gaps, which must stay as they are.
TEST_P(BackwardPromise, StridesDoNotMatter) {
  for_each_case([](const Given& g) {
    const gruc_spec& spec = g.network.spec();
    const Problem& p = g.problem;
    const Gradients expected = all_of(g, g.how);
    const int64_t in = spec.input_size, out = width_of(spec);
    struct Layout {
      int64_t x_step, x_batch, y_step, y_batch;
    };
    const Layout layouts[] = {{in, p.steps * in, out, p.steps * out},
                              {p.batch * (in + 3) + 5, in + 3, p.batch * (out + 1) + 7, out + 1}};
    for (const Layout& l : layouts) {
      const auto spread = [&](const std::vector<float>& from, int64_t width, int64_t step, int64_t row, float fill) {
        std::vector<float> to(static_cast<size_t>(p.steps * step + p.batch * row + width), fill);
        for (int64_t t = 0; t < p.steps; ++t)
          for (int64_t b = 0; b < p.batch; ++b)
            std::copy_n(&from[(t * p.batch + b) * width], width, &to[t * step + b * row]);
        return to;
      };
      const auto x = spread(p.x, in, l.x_step, l.x_batch, NAN);
      const auto dy = spread(g.incoming.dy, out, l.y_step, l.y_batch, NAN);
      auto dx = spread(std::vector<float>(expected.x.size(), 0.0f), in, l.x_step, l.x_batch, 77.0f);
      How how = g.how;
      how.sequence = [&](gruc_sequence& s) {
        s.x = x.data();
        s.x_step_stride = l.x_step;
        s.x_batch_stride = l.x_batch;
      };
      how.gradients = [&](gruc_gradients& gradients) {
        gradients.dy = dy.data();
        gradients.dy_step_stride = l.y_step;
        gradients.dy_batch_stride = l.y_batch;
        gradients.dx = dx.data();
        gradients.dx_step_stride = l.x_step;
        gradients.dx_batch_stride = l.x_batch;
      };
      Gradients got = all_of(g, how);
      got.x = expected.x;
      EXPECT_TRUE(same_bits(got, expected));
      EXPECT_TRUE(same_bits(dx, spread(expected.x, in, l.x_step, l.x_batch, 77.0f)));
    }
  });
}

// Everything but the tape and the workspace at addresses that are multiples of 4 alone.
TEST_P(BackwardPromise, AlignmentDoesNotMatter) {
  for_each_case([](const Given& g) {
    const Gradients expected = all_of(g, g.how);
    const auto shifted = [](std::vector<float> v) {
      v.insert(v.begin(), NAN);
      return v;
    };
    const auto x = shifted(g.problem.x), h0 = shifted(g.problem.h0);
    const auto dy = shifted(g.incoming.dy), dh_n = shifted(g.incoming.dh_n);
    Gradients into = zeros(g.network.spec(), g.problem);
    for (auto* array : into.arrays())
      if (!array->empty()) *array = shifted(*array);
    const std::vector<gruc_layer_gradients> params = into.layers(1);
    How how = g.how;
    how.sequence = [&](gruc_sequence& s) {
      s.x = x.data() + 1;
      s.h0 = h0.data() + 1;
    };
    how.gradients = [&](gruc_gradients& gradients) {
      gradients.dy = dy.data() + 1;
      gradients.dh_n = dh_n.data() + 1;
      gradients.dx = into.x.data() + 1;
      gradients.dh0 = into.h0.data() + 1;
      gradients.params = params.data();
    };
    all_of(g, how);
    for (auto* array : into.arrays())
      if (!array->empty()) array->erase(array->begin());
    EXPECT_TRUE(same_bits(into, expected));
  });
}

TEST_P(BackwardPromise, LengthsOfWholeRowsAreNoLengths) {
  for_each_case([](const Given& g) {
    if (!g.problem.lengths.empty()) return;
    Problem counted = g.problem;
    counted.lengths.assign(static_cast<size_t>(counted.batch), counted.steps);
    EXPECT_TRUE(same_bits(gradients(g.network, counted, g.how, g.incoming), all_of(g, g.how)));
  });
}

// No h0 is zeros, and has a gradient all the same.
TEST_P(BackwardPromise, NoInitialStateIsZeros) {
  for_each_case([](const Given& g) {
    Problem zeroed = g.problem, none = g.problem;
    std::fill(zeroed.h0.begin(), zeroed.h0.end(), 0.0f);
    none.h0.clear();
    EXPECT_TRUE(
        same_bits(gradients(g.network, none, g.how, g.incoming), gradients(g.network, zeroed, g.how, g.incoming)));
  });
}
GRUC_FOR_EVERY_ISA(BackwardPromise);

}  // namespace
}  // namespace gruc::test
