// gru_core_fixed.hpp against the library, bit by bit: every size of fixed_runs.cpp, in every kind of instructions that
// this machine runs, with inputs of all kinds; and what its types promise.
// Must not include kernels.
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "fixed_runs.h"
#include "gru_core/gru_core_fixed.hpp"
#include "support.h"

namespace gruc::test {
namespace {

const FixedRuns* const kObjects[] = {
#if defined(__x86_64__)
    &fixed_runs_avx512,
    &fixed_runs_avx2,
    &fixed_runs_portable,
#elif defined(__aarch64__)
    &fixed_runs_neon,
#else
    &fixed_runs_portable,
#endif
};

bool runs_here(const std::string& isa) {
  for (const std::string& name : supported_isas())
    if (name == isa) return true;
  return false;
}

enum class Kind { kOrdinary, kHuge, kInfinite, kNan, kTinyInputs, kTinyWeights, kTinyStates };
constexpr Kind kKinds[] = {Kind::kOrdinary,   Kind::kHuge,        Kind::kInfinite,  Kind::kNan,
                           Kind::kTinyInputs, Kind::kTinyWeights, Kind::kTinyStates};
bool tiny(Kind kind) { return kind >= Kind::kTinyInputs; }

// Magnitudes around 2^-100, up to which they count as zero; denormals and zeros too.
void make_tiny(std::vector<float>& values, Random& random) {
  const float rare[] = {0x1p-100f, -0x1p-100f, 1e-40f, -1e-45f, -0.0f};
  for (float& v : values) {
    const int64_t i = random.integer(0, 20);
    v = i < 5 ? rare[i] : std::copysign(static_cast<float>(std::exp2(random.uniform(-102, -98))), v);
  }
}
void scale(std::vector<float>& values, size_t begin, size_t end, float factor) {
  for (size_t i = begin; i < end; ++i) values[i] *= factor;
}

// One network's arrays, such that what is tiny decides about the result: it meets factors of 2^100.
struct Case {
  Case(const gruc_spec& spec, Kind kind, int64_t steps, Random& random)
      : params(spec, random, 1.5), x(random.normals(steps * spec.input_size)), h0(random.normals(spec.hidden_size)) {
    std::vector<float>&weight_ih = params.arrays[0], &weight_hh = params.arrays[1];
    const size_t gates = weight_hh.size() / 3 * 2;
    if (kind == Kind::kTinyInputs) {
      make_tiny(x, random);
      scale(weight_ih, 0, weight_ih.size(), 0x1p100f);
    } else if (kind == Kind::kTinyWeights) {
      make_tiny(weight_ih, random);
      scale(x, 0, x.size(), 0x1p100f);
    } else if (kind == Kind::kTinyStates) {
      make_tiny(h0, random);
      scale(weight_ih, 0, weight_ih.size(), 0x1p-100f);
      scale(weight_hh, 0, gates, 0x1p100f);
      scale(weight_hh, gates, weight_hh.size(), spec.reset == GRUC_RESET_BEFORE ? 0x1p60f : 0x1p-60f);
    } else if (kind != Kind::kOrdinary) {
      constexpr float kInfinity = std::numeric_limits<float>::infinity();
      const float huge[] = {3e38f, -3e38f, 1e30f, -1e20f, 88.0f},
                  infinite[] = {kInfinity, -kInfinity, 3e38f, 1.0f, 0.0f};
      for (float& v : x) {
        const int64_t i = random.integer(0, 20);
        if (kind == Kind::kNan && i == 0) v = std::numeric_limits<float>::quiet_NaN();
        if (kind == Kind::kHuge && i < 5) v = huge[i];
        if (kind == Kind::kInfinite && i < 5) v = infinite[i];
      }
    }
  }

  Params params;
  std::vector<float> x, h0;
};

std::vector<float> library_steps(const Network& network, const std::vector<float>& h0, int64_t steps,
                                 const std::vector<float>& x) {
  gruc_state* state = nullptr;
  EXPECT_EQ(gruc_state_create(network.weights(), 1, &state), GRUC_OK);
  EXPECT_EQ(gruc_state_set(state, h0.data()), GRUC_OK);
  const gruc_spec& spec = network.spec();
  std::vector<float> y(static_cast<size_t>(steps * spec.hidden_size));
  for (int64_t t = 0; t < steps; ++t)
    EXPECT_EQ(gruc_step(state, x.data() + t * spec.input_size, y.data() + t * spec.hidden_size), GRUC_OK);
  gruc_state_destroy(state);
  return y;
}

class Fixed : public ::testing::TestWithParam<const FixedRuns*> {};

TEST_P(Fixed, SameBitsAsTheLibrary) {
  const FixedRuns& object = *GetParam();
  if (!runs_here(object.isa)) GTEST_SKIP() << "this CPU or its operating system cannot run " << object.isa;
  const bool emulated = object.isa == std::string("portable");
  uint64_t seed = 1;
  for (int64_t i = 0; i < object.count; ++i) {
    const FixedRun& fixed = object.runs[i];
    gruc_spec spec = make_spec(fixed.input, fixed.hidden);
    spec.reset = fixed.reset;
    spec.update = fixed.update;
    for (const Kind kind : kKinds) {
      spec.bias = tiny(kind) ? GRUC_BIAS_NONE : static_cast<int32_t>((i / 6 + i) % 4);
      Random random(seed++);
      const int64_t steps = kind != Kind::kOrdinary ? 24 : (emulated ? 60 : 1000);
      const Case data(spec, kind, steps, random);
      std::vector<float> y(static_cast<size_t>(steps * fixed.hidden));
      const gruc_layer_params& p = data.params.layers[0];
      fixed.run(p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh, data.h0.data(), steps, data.x.data(), y.data());
      ASSERT_TRUE(same_bits(y, library_steps(Network(spec, data.params), data.h0, steps, data.x)))
          << "I " << fixed.input << " H " << fixed.hidden << " reset " << fixed.reset << " update " << fixed.update
          << " bias " << spec.bias << " kind " << static_cast<int>(kind);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, Fixed, ::testing::ValuesIn(kObjects),
                         [](const ::testing::TestParamInfo<const FixedRuns*>& i) { return std::string(i.param->isa); });

// Layers stack by hand, in place too.
TEST(FixedTypes, TwoLayersAreTheLibrarys) {
  Random random(3);
  const gruc_spec spec = make_spec(8, 8, 2);
  const Params params(spec, random, 1.5);
  const auto weights = [&](size_t layer) {
    const gruc_layer_params& p = params.layers[layer];
    return gru_core::fixed::Weights<8, 8>(p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh);
  };
  const auto first = weights(0), second = weights(1);
  gru_core::fixed::State<8> states[2];
  constexpr int64_t kSteps = 50;
  const std::vector<float> x = random.normals(kSteps * 8);
  std::vector<float> y = x;
  for (float* frame = y.data(); frame < y.data() + y.size(); frame += 8) {
    step(first, states[0], frame, frame);
    step(second, states[1], frame, frame);
  }
  EXPECT_TRUE(same_bits(y, library_steps(Network(spec, params), std::vector<float>(16), kSteps, x)));
}

constexpr float kWeights[3 * 2 * 2] = {0.1f, -0.2f, 0.3f, 1e-40f, 0.5f, -0.6f, 0.7f, 0.8f, -0.9f, 1.0f, 1.1f, -1.2f};
constexpr float kBias[3 * 2] = {0.1f, 0.2f, 0.3f, -0.4f, 0.5f, -0.6f};
constexpr gru_core::fixed::Weights<2, 2> kPacked(kWeights, kWeights, kBias, kBias);
static_assert(kPacked.input_bias[0][0][1] == 0.2f + 0.2f && kPacked.input_bias[0][2][0] == 0.5f);
static_assert(kPacked.hidden_bias[0][1] == -0.6f && kPacked.input_panels[0][1][0][1] == 0.0f);

TEST(FixedTypes, WeightsOfTheCompilerAreThoseOfRunTime) {
  const gru_core::fixed::Weights<2, 2> packed(kWeights, kWeights, kBias, kBias);
  EXPECT_EQ(std::memcmp(&packed, &kPacked, sizeof packed), 0);
}

TEST(FixedTypes, ACopiedStateGoesOn) {
  static_assert(std::is_trivially_copyable_v<gru_core::fixed::State<2>>);
  gru_core::fixed::State<2> state;
  const float x[2] = {0.3f, -0.7f};
  float y[2], again[2];
  step(kPacked, state, x, y);
  gru_core::fixed::State<2> copy = state;
  step(kPacked, state, x, y);
  step(kPacked, copy, x, again);
  EXPECT_EQ(std::memcmp(y, again, sizeof y), 0);
  EXPECT_NE(y[0], 0.0f);
  state.reset();
  EXPECT_EQ(state.h[0], 0.0f);
}

}  // namespace
}  // namespace gruc::test
