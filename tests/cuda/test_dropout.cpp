// Dropout between layers on the device: the very masks that the CPU's library draws, and the gradients through them.
// Must not include the backend's internals.
#include <cmath>

#include "device.h"

namespace gruc::test {
namespace {

constexpr double kClose = 1e-5;

class CudaDropout : public CudaTest {};

TEST_F(CudaDropout, IsTheOneOfTheCpu) {
  Random random(1);
  for (const float dropout : {0.1f, 0.5f, 0.9f, 1.0f, 0x1p-32f})
    for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL})
      for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
        gruc_spec spec = make_spec(5, random.integer(1, 20), 3, direction);
        spec.reset = random.integer(0, 1) != 0 ? GRUC_RESET_AFTER : GRUC_RESET_BEFORE;
        const Params params(spec, random);
        const CudaNetwork network(spec, params);
        const Network cpu(spec, params);
        const Problem p = make_problem(spec, 4, random.integer(1, 6), random, lengths, Start::kRandom);
        const Incoming incoming = make_incoming(spec, p, random);
        How how;
        how.dropout = dropout;
        how.seed = random.bits();
        const std::vector<double> factors = all_dropout_factors(spec, p, how);
        const CudaTaped taped = train(network, p, how);
        // Another mask would be off by whole outputs.
        EXPECT_LE(distance(taped.result, train(cpu, p, how).result), kClose) << describe(spec, p);
        EXPECT_LE(distance(taped.result, exact(spec, params, p, factors)), kClose) << describe(spec, p);
        const Gradients got = gradients(network, p, how, taped, incoming, zeros(spec, p));
        EXPECT_LE(distance(got, exact_gradients(spec, params, p, incoming, factors)), kClose)
            << describe(spec, p) << " dropout " << dropout;
      }
}

// Masks count in the array's order, whatever the caller's layout.
TEST_F(CudaDropout, LayoutsDoNotMoveTheMask) {
  Random random(2);
  const gruc_spec spec = make_spec(5, 9, 2);
  const Params params(spec, random);
  const CudaNetwork network(spec, params);
  const Problem p = make_problem(spec, 4, 3, random);
  How how;
  how.dropout = 0.5f;
  how.seed = 7;
  const Result expected = train(network, p, how).result;
  std::vector<float> turned(p.x.size());
  for (size_t t = 0; t < 4; ++t)
    for (size_t b = 0; b < 3; ++b)
      std::copy_n(p.x.begin() + static_cast<int64_t>((t * 3 + b) * 5), 5,
                  turned.begin() + static_cast<int64_t>((b * 4 + t) * 5));
  const DeviceFloats x(turned);
  how.sequence = [&](gruc_sequence& s) {
    s.x = x.data();
    s.x_step_stride = 5;
    s.x_batch_stride = 20;
  };
  EXPECT_LE(distance(train(network, p, how).result, expected), 1e-6);
}

TEST_F(CudaDropout, OfNothingIsNone) {
  Random random(3);
  for (const int32_t layers : {1, 2}) {
    const gruc_spec spec = make_spec(5, 9, layers);
    const CudaNetwork network(spec, Params(spec, random));
    const Problem p = make_problem(spec, 4, 3, random);
    const Result none = run(network, p);
    How how;
    how.seed = 5;
    how.dropout = layers == 1 ? 0.5f : 0.0f;
    EXPECT_LE(distance(train(network, p, how).result, none), 1e-6);
  }
}

}  // namespace
}  // namespace gruc::test
