// The gradients of the device against the equations in double: the variants that training uses, odd sizes, ragged
// batches, each gradient alone, by every way of doing the time loop. Must not include the backend's internals.
#include <algorithm>
#include <cmath>

#include "device.h"

namespace gruc::test {
namespace {

constexpr double kClose = 1e-5;  // of an array's largest entry

void expect_gradients(const gruc_spec& spec, const Problem& problem, Random& random, double scale = 1.5) {
  // Saturated units have lost the digits of 1 - n^2: many inputs get smaller weights.
  const Params params(spec, random, scale * std::min(1.0, std::sqrt(1.0 * spec.hidden_size / spec.input_size)));
  const CudaNetwork network(spec, params);
  const Incoming incoming = make_incoming(spec, problem, random);
  const CudaTaped taped = train(network, problem);
  EXPECT_LE(distance(taped.result, exact(spec, params, problem)), kClose) << describe(spec, problem);
  expect_exact_edges(spec, problem, taped.result);
  const Gradients got = gradients(network, problem, {}, taped, incoming, zeros(spec, problem));
  EXPECT_LE(distance(got, exact_gradients(spec, params, problem, incoming)), kClose) << describe(spec, problem);
}

class CudaBackward : public CudaPathTest {};

TEST_P(CudaBackward, EveryVariant) {
  Random random(1);
  for_every_variant(random, [&](const gruc_spec& spec, const Problem& p) { expect_gradients(spec, p, random); });
}

TEST_P(CudaBackward, OddSizes) {
  Random random(2);
  for (const int64_t input : {1, 3, 8, 16, 33})
    for (const int64_t hidden : {1, 3, 7, 8, 9, 15, 16, 17, 31, 33})
      for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
        gruc_spec spec = make_spec(input, hidden);
        spec.reset = reset;
        expect_gradients(spec, make_problem(spec, 3, random.integer(1, 9), random), random);
      }
}

TEST_P(CudaBackward, Batches) {
  Random random(3);
  for (const int64_t batch : {1, 2, 4, 5, 9, 33, 65, 70})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
      for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
        gruc_spec spec = make_spec(5, 19, 1, random.integer(0, 1) != 0 ? GRUC_REVERSE : GRUC_FORWARD);
        spec.reset = reset;
        expect_gradients(spec, make_problem(spec, 4, batch, random, lengths, Start::kRandom), random);
      }
}

TEST_P(CudaBackward, FewStepsAndRows) {
  Random random(4);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
    for (const int64_t steps : {0, 1, 2})
      for (const int64_t batch : {0, 1, 2, 9})
        for (const auto start : {Start::kZero, Start::kRandom})
          for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
            const gruc_spec spec = make_spec(random.integer(1, 17), random.integer(1, 17), 2, direction);
            expect_gradients(spec, make_problem(spec, steps, batch, random, lengths, start), random);
          }
}

// Added to what the arrays hold, and the same tape read twice.
TEST_P(CudaBackward, GradientsAreAdded) {
  Random random(5);
  for (const int32_t layers : {1, 2})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
      gruc_spec spec = make_spec(5, 9, layers, GRUC_BIDIRECTIONAL);
      spec.reset = reset;
      const Params params(spec, random);
      const CudaNetwork network(spec, params);
      const Problem p = make_problem(spec, 4, 5, random, Lengths::kRagged, Start::kRandom);
      const Incoming incoming = make_incoming(spec, p, random);
      const CudaTaped taped = train(network, p);
      Gradients before = zeros(spec, p);
      for (auto* array : before.arrays())
        for (float& x : *array) x = static_cast<float>(random.uniform(-1.0, 1.0));
      Gradients got = gradients(network, p, {}, taped, incoming, before);
      got = gradients(network, p, {}, taped, incoming, got);
      const auto had = before.arrays(), has = got.arrays();
      for (size_t i = 0; i < had.size(); ++i)
        for (size_t j = 0; j < had[i]->size(); ++j) (*has[i])[j] = 0.5f * ((*has[i])[j] - (*had[i])[j]);
      EXPECT_LE(distance(got, exact_gradients(spec, params, p, incoming)), kClose) << describe(spec, p);
    }
}

// Each gradient alone, and each layer's alone: the others' pointers are NULL.
TEST_P(CudaBackward, EachAlone) {
  Random random(6);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int64_t batch : {1, 3}) {
      gruc_spec spec = make_spec(5, 7, 2, GRUC_BIDIRECTIONAL);
      spec.reset = reset;
      const Params params(spec, random);
      const CudaNetwork network(spec, params);
      const Problem p = make_problem(spec, 3, batch, random, Lengths::kRagged, Start::kRandom);
      const Incoming incoming = make_incoming(spec, p, random);
      const CudaTaped taped = train(network, p);
      Gradients all = gradients(network, p, {}, taped, incoming, zeros(spec, p));
      const size_t arrays = all.arrays().size();
      for (size_t i = 0; i < arrays; ++i) {
        Gradients one = zeros(spec, p);
        for (size_t j = 0; j < arrays; ++j)
          if (j != i) one.arrays()[j]->clear();
        one = gradients(network, p, {}, taped, incoming, one);
        const std::vector<float>&got = *one.arrays()[i], &expected = *all.arrays()[i];
        double largest = 0.0, worst = 0.0;
        for (size_t j = 0; j < got.size(); ++j) {
          largest = std::max(largest, std::fabs(double{expected[j]}));
          worst = std::max(worst, std::fabs(double{got[j]} - expected[j]));
        }
        EXPECT_LE(worst, kClose * largest) << "array " << i << " " << describe(spec, p);
      }
      gradients(network, p, {}, taped, incoming, Gradients{});
    }
}

// Either may be absent, which is zeros; where both are, all gradients are zero.
TEST_P(CudaBackward, IncomingGradientsMayBeAbsent) {
  Random random(7);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_BIDIRECTIONAL})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
      gruc_spec spec = make_spec(5, 9, 2, direction);
      spec.reset = reset;
      const Params params(spec, random);
      const CudaNetwork network(spec, params);
      const Problem p = make_problem(spec, 5, 4, random, Lengths::kRagged, Start::kRandom);
      const Incoming both = make_incoming(spec, p, random);
      for (const Incoming& incoming : {Incoming{both.dy, {}}, Incoming{{}, both.dh_n}, Incoming{}})
        EXPECT_LE(distance(gradients(network, p, {}, incoming), exact_gradients(spec, params, p, incoming)), kClose)
            << describe(spec, p);
    }
}

// Batch first, and columns of larger arrays; what is beyond a row's length stays as it is.
TEST_P(CudaBackward, Strides) {
  Random random(8);
  for (const int32_t layers : {1, 2})
    for (const int64_t batch : {1, 4}) {
      const gruc_spec spec = make_spec(5, 9, layers, GRUC_BIDIRECTIONAL);
      const Params params(spec, random);
      const CudaNetwork network(spec, params);
      const Problem p = make_problem(spec, 4, batch, random, Lengths::kRagged, Start::kRandom);
      const Incoming incoming = make_incoming(spec, p, random);
      const int64_t width = width_of(spec), steps = p.steps;
      const auto expected = exact_gradients(spec, params, p, incoming);
      for (const int64_t gap : {0, 3}) {
        const int64_t x_row = steps * (5 + gap), y_row = steps * (width + gap);
        const auto spread = [&](const std::vector<float>& dense, int64_t columns, float elsewhere) {
          std::vector<float> array(static_cast<size_t>(batch * steps * (columns + gap)), elsewhere);
          for (int64_t t = 0; t < steps; ++t)
            for (int64_t b = 0; b < batch; ++b)
              for (int64_t i = 0; i < columns; ++i)
                array[static_cast<size_t>((b * steps + t) * (columns + gap) + i)] =
                    dense[static_cast<size_t>((t * batch + b) * columns + i)];
          return array;
        };
        const DeviceFloats x(spread(p.x, 5, NAN)), dy(spread(incoming.dy, width, NAN));
        const DeviceFloats dx(std::vector<float>(static_cast<size_t>(batch * x_row), 7.0f));
        How how;
        how.sequence = [&](gruc_sequence& s) {
          s.x = x.data();
          s.x_step_stride = 5 + gap;
          s.x_batch_stride = x_row;
        };
        how.gradients = [&](gruc_gradients& g) {
          g.dy = dy.data();
          g.dy_step_stride = width + gap;
          g.dy_batch_stride = y_row;
          g.dx = dx.data();
          g.dx_step_stride = 5 + gap;
          g.dx_batch_stride = x_row;
        };
        Gradients got = gradients(network, p, how, incoming);
        std::vector<float> rest = dx.read();
        const std::vector<float> all = rest;
        for (int64_t t = 0; t < steps; ++t)
          for (int64_t b = 0; b < batch; ++b)
            for (int64_t i = 0; t < p.lengths[static_cast<size_t>(b)] && i < 5; ++i) {
              const size_t at = static_cast<size_t>((b * steps + t) * (5 + gap) + i);
              got.x[static_cast<size_t>((t * batch + b) * 5 + i)] = all[at] - 7.0f;
              rest[at] = 7.0f;
            }
        EXPECT_TRUE(same_bits(rest, std::vector<float>(rest.size(), 7.0f))) << describe(spec, p);
        EXPECT_LE(distance(got, expected), kClose) << describe(spec, p);
      }
    }
}

TEST_P(CudaBackward, WorkspacesOfTheCaller) {
  Random random(9);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int64_t batch : {1, 6, 40})
      for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
        gruc_spec spec = make_spec(5, 9, 2, GRUC_BIDIRECTIONAL);
        spec.reset = reset;
        const Params params(spec, random);
        const CudaNetwork network(spec, params);
        const Problem p = make_problem(spec, 4, batch, random, lengths);
        const Incoming incoming = make_incoming(spec, p, random);
        std::unique_ptr<DeviceBytes> workspace;
        How how;
        const gruc_training training = how.training();
        how.gradients = [&](gruc_gradients& g) {
          DeviceCall call(network, p);
          size_t size = 0;
          ASSERT_EQ(gruc_cuda_backward_workspace(network.weights(), &call.sequence, &training, &g, &size), GRUC_OK)
              << gruc_cuda_last_error();
          workspace = std::make_unique<DeviceBytes>(size);
          g.workspace = workspace->data();
          g.workspace_size = size;
        };
        EXPECT_LE(distance(gradients(network, p, how, incoming), exact_gradients(spec, params, p, incoming)), kClose)
            << describe(spec, p);
      }
}
GRUC_FOR_EVERY_PATH(CudaBackward);

class CudaBackwardLarge : public CudaTest {};
TEST_F(CudaBackwardLarge, SizesOfAHundredAndMore) {
  Random random(10);
  for (const int64_t hidden : {100, 132})
    for (const int64_t batch : {1, 5, 33}) {
      gruc_spec spec = make_spec(hidden + 1, hidden, 1, batch == 5 ? GRUC_BIDIRECTIONAL : GRUC_FORWARD);
      spec.reset = batch == 5 ? GRUC_RESET_BEFORE : GRUC_RESET_AFTER;
      expect_gradients(spec, make_problem(spec, 3, batch, random, Lengths::kRagged, Start::kRandom), random);
    }
}

}  // namespace
}  // namespace gruc::test
