// gru_core.hpp with exceptions: the same bits as the C calls, sizes refused in words, handles that move and may be
// empty. Must not include the core's internals.
#include <cstring>
#include <gru_core/gru_core.hpp>
#include <limits>
#include <type_traits>

#include "cpp_api.h"
#include "training.h"

namespace gruc::test {
namespace {

using gru_core::Model;
using gru_core::Span;
using gru_core::Spec;
using gru_core::State;
using gru_core::Status;
using gru_core::Weights;

static_assert(!std::is_copy_constructible_v<Model> && !std::is_copy_assignable_v<Model>);
static_assert(!std::is_copy_constructible_v<Weights> && !std::is_copy_assignable_v<Weights>);
static_assert(!std::is_copy_constructible_v<State> && !std::is_copy_assignable_v<State>);
static_assert(std::is_nothrow_move_constructible_v<State> && std::is_nothrow_move_assignable_v<State>);
static_assert(std::is_trivially_copyable_v<Status>);
static_assert(noexcept(std::declval<State&>().step({}, {})) && noexcept(std::declval<State&>().process(1, {}, {})));

Weights weights_of(const Spec& spec, const Params& params) { return Weights::create(spec, params.layers).value(); }

Span<std::byte> span_of(Guarded& memory) { return {static_cast<std::byte*>(memory.data()), memory.size()}; }

template <class Call>
testing::AssertionResult throws(Call call, gruc_status code, const std::string& message) {
  try {
    call();
  } catch (const gru_core::Error& e) {
    if (e.code() == code && e.what() == message) return testing::AssertionSuccess();
    return testing::AssertionFailure() << gruc_status_name(e.code()) << ": " << e.what();
  }
  return testing::AssertionFailure() << "nothing was thrown";
}

TEST(CppLibrary, Library) {
  EXPECT_STREQ(gru_core::version(), GRUC_VERSION);
  EXPECT_EQ(gru_core::abi_version(), static_cast<uint32_t>(GRUC_ABI_VERSION));
  EXPECT_EQ(gru_core::max_threads(), gruc_max_threads());
  std::vector<std::string> supported;
  for (int32_t i = 0; gru_core::isa_name(i) != nullptr; ++i)
    if (gru_core::isa_supported(i)) supported.emplace_back(gru_core::isa_name(i));
  EXPECT_EQ(supported, supported_isas());
  const ForcedIsa forced("portable");
  EXPECT_STREQ(gru_core::active_isa().value(), "portable");
}

TEST(CppLibrary, AnUnknownIsa) {
  const ForcedIsa forced("abacus");
  const auto isa = gru_core::active_isa();
  EXPECT_FALSE(isa.ok());
  EXPECT_EQ(isa.code(), GRUC_INVALID_ARGUMENT);
  EXPECT_NE(std::string(isa.message()).find("abacus"), std::string::npos) << isa.message();
}

TEST(CppLibrary, SpecIsPyTorchsAndIsChecked) {
  gruc_spec plain;
  gruc_spec_init(&plain);
  plain.input_size = 3, plain.hidden_size = 5, plain.num_layers = 2;
  Spec spec(3, 5, 2);
  EXPECT_EQ(std::memcmp(static_cast<gruc_spec*>(&spec), &plain, sizeof plain), 0);
  EXPECT_TRUE(spec.validate().ok());
  spec.clip = -1;
  EXPECT_TRUE(refused(spec.validate().code(), "spec.clip"));
}

class CppStream : public IsaTest {};

TEST_P(CppStream, TheSameBitsAsC) {
  constexpr int64_t kSteps = 5, kBatch = 3;
  Random random(1);
  const Spec spec(4, 33, 2);
  const Params params(spec, random);
  const Network network(spec, params);
  const auto x = random.normals(kSteps * kBatch * spec.input_size), h = random.uniforms(states_of(spec, kBatch), 1);
  std::vector<float> expected(static_cast<size_t>(kSteps * kBatch * spec.hidden_size)), expected_h(h.size());
  gruc_state* state = nullptr;
  ASSERT_EQ(gruc_state_create(network.weights(), kBatch, &state), GRUC_OK);
  ASSERT_EQ(gruc_state_set(state, h.data()), GRUC_OK);
  ASSERT_EQ(gruc_process(state, kSteps, x.data(), expected.data()), GRUC_OK);
  ASSERT_EQ(gruc_state_get(state, expected_h.data()), GRUC_OK);
  gruc_state_destroy(state);

  const Weights weights = weights_of(spec, params);
  EXPECT_STREQ(weights.isa(), GetParam().c_str());
  EXPECT_EQ(weights.bytes(), gruc_weights_bytes(network.weights()));
  Guarded memory(State::bytes(weights, kBatch).value());
  State states[] = {State::create(weights, kBatch).value(), State::create_in(span_of(memory), weights, kBatch).value()};
  for (State& s : states) {
    std::vector<float> y(expected.size()), last(h.size()), stepped;
    s.set_h(h).check();
    s.process(kSteps, x, y).check();
    s.get_h(last).check();
    EXPECT_TRUE(same_bits(y, expected));
    EXPECT_TRUE(same_bits(last, expected_h));
    EXPECT_EQ(s.position(), kSteps);
    s.set_h(h).check();
    std::vector<float> frame(s.y_size());
    for (size_t t = 0; t < kSteps; ++t) {
      s.step(Span<const float>(&x[t * s.x_size()], s.x_size()), frame).check();
      stepped.insert(stepped.end(), frame.begin(), frame.end());
    }
    EXPECT_TRUE(same_bits(stepped, expected));
    s.reset().check();
    s.get_h(last).check();
    EXPECT_TRUE(same_bits(last, std::vector<float>(h.size())));
    EXPECT_EQ(s.position(), 0);
    s.set_position(7).check();
    EXPECT_EQ(s.position(), 7);
    s.set_threads(2).check();
  }
  EXPECT_TRUE(memory.intact());
}
GRUC_FOR_EVERY_ISA(CppStream);

class CppApi : public ::testing::Test {
 protected:
  Random random{1};
  Spec spec{4, 5, 2};
  Params params{spec, random};
  Weights weights = weights_of(spec, params);
  State state = State::create(weights, 3).value();  // x has 12 floats, y 15, h 30
  std::vector<float> x = std::vector<float>(36), y = std::vector<float>(45), h = std::vector<float>(30);

  Span<const float> some_x(size_t size) const { return {x.data(), size}; }
  Span<float> some_y(size_t size) { return {y.data(), size}; }
};

TEST_F(CppApi, ACopyGoesOnAlike) {
  x = random.normals(36);
  state.process(3, x, y).check();
  State copy = State::create(weights, 3).value();
  copy.copy(state).check();
  EXPECT_EQ(copy.position(), 3);
  std::vector<float> other(y.size());
  state.process(3, x, y).check();
  copy.process(3, x, other).check();
  EXPECT_TRUE(same_bits(y, other));
  const State wide = State::create(weights, 4).value();
  EXPECT_EQ(copy.copy(wide).code(), GRUC_INVALID_ARGUMENT);
  State moved = std::move(copy);
  EXPECT_TRUE(refused(moved.copy(copy).code(), "from"));
}

TEST_F(CppApi, SpansOfTheWrongSize) {
  EXPECT_EQ(state.step(some_x(11), some_y(15)).message(), "x: expected 12 elements, got 11");
  EXPECT_EQ(state.step(some_x(12), some_y(16)).message(), "y: expected 15 elements, got 16");
  EXPECT_EQ(state.process(3, some_x(35), some_y(45)).message(), "x: expected 36 elements, got 35");
  EXPECT_EQ(state.process(3, some_x(36), some_y(44)).message(), "y: expected 45 elements, got 44");
  EXPECT_EQ(state.process(0, some_x(1), {}).message(), "x: expected 0 elements, got 1");
  EXPECT_EQ(state.get_h(some_y(15)).message(), "h: expected 30 elements, got 15");
  EXPECT_EQ(state.set_h(some_x(0)).message(), "h: expected 30 elements, got 0");
  EXPECT_EQ(state.step({}, {}).code(), GRUC_INVALID_ARGUMENT);
  EXPECT_EQ(state.step(some_x(12), some_y(15)).message(), "");
  EXPECT_TRUE(state.process(0, {}, {}).ok());
  EXPECT_TRUE(state.process(3, x, y).ok());
}

TEST_F(CppApi, StepsThatNoArrayHas) {
  EXPECT_EQ(state.process(-1, x, y).message(), "steps: expected 0 or more");
  // 2^62 * 12 and 2^62 * 16 are 0 in 64 bits
  for (const int64_t steps : {int64_t{1} << 62, std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(state.process(steps, {}, {}).code(), GRUC_INVALID_ARGUMENT);
    EXPECT_EQ(state.process(steps, x, y).code(), GRUC_INVALID_ARGUMENT);
  }
  const Spec wide(4, 4);
  const Params wide_params(wide, random);
  const Weights four = weights_of(wide, wide_params);
  State s = State::create(four).value();
  EXPECT_EQ(s.process(int64_t{1} << 62, {}, {}).message(),
            "x: expected sizes and strides that are not negative and fit memory");
}

TEST_F(CppApi, NoHeapInStepsNorInRefusals) {
  if (heap_calls() < 0) GTEST_SKIP() << "the heap's calls cannot be counted here";
  const int64_t before = heap_calls();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(state.step(some_x(12), some_y(15)).ok());
    ASSERT_TRUE(state.process(3, x, y).ok());
    ASSERT_FALSE(state.step(some_x(11), some_y(15)).ok());
    ASSERT_FALSE(state.process(-1, x, y).ok());
  }
  EXPECT_EQ(heap_calls(), before);
}

TEST_F(CppApi, FailuresThrowWhenAsked) {
  EXPECT_TRUE(
      throws([&] { state.step(some_x(11), y).check(); }, GRUC_INVALID_ARGUMENT, "x: expected 12 elements, got 11"));
  EXPECT_TRUE(throws([&] { (void)State::create(weights, -1).value(); }, GRUC_INVALID_ARGUMENT,
                     State::create(weights, -1).message()));
  EXPECT_NO_THROW(state.step(some_x(12), some_y(15)).check());
}

TEST_F(CppApi, AResultKeepsItsWords) {
  const auto first = Model::load("no such file");
  const auto second = State::bytes(weights, -1);
  EXPECT_NE(std::string(first.message()).find("no such file"), std::string::npos) << first.message();
  EXPECT_NE(std::string(second.message()).find("batch"), std::string::npos) << second.message();
  EXPECT_EQ(first.status().message(), first.message());
  const auto fine = State::bytes(weights);
  EXPECT_STREQ(fine.message(), "");
  EXPECT_TRUE(fine.status().ok());
}

TEST_F(CppApi, CallersMemoryIsChecked) {
  Guarded memory(State::bytes(weights, 3).value() + 64);
  const Span<std::byte> all = span_of(memory);
  EXPECT_TRUE(State::create_in({all.data(), all.size() - 64}, weights, 3).ok());
  EXPECT_FALSE(State::create_in({all.data(), all.size() - 65}, weights, 3).ok());
  EXPECT_FALSE(State::create_in({all.data() + 1, all.size() - 1}, weights, 3).ok());
  EXPECT_FALSE(State::create_in({}, weights, 3).ok());
}

TEST_F(CppApi, WhatWasMovedFromIsEmptyAndSafe) {
  state.process(3, x, y).check();
  const std::vector<float> expected = y;
  state.reset().check();
  State moved = std::move(state);
  EXPECT_EQ(state.step(some_x(12), some_y(15)).message(), "state: expected a pointer, got NULL");
  EXPECT_EQ(state.process(3, x, y).code(), GRUC_INVALID_ARGUMENT);
  EXPECT_EQ(state.reset().code(), GRUC_INVALID_ARGUMENT);
  EXPECT_EQ(state.position(), 0);
  EXPECT_EQ(state.get(), nullptr);
  moved.process(3, x, y).check();
  EXPECT_TRUE(same_bits(y, expected));

  State& alias = moved;
  moved = std::move(alias);
  moved.reset().check();
  moved.process(3, x, y).check();
  EXPECT_TRUE(same_bits(y, expected));

  state = std::move(moved);                   // over an empty one
  state = State::create(weights, 1).value();  // over one that owns
  EXPECT_TRUE(state.step(some_x(4), some_y(5)).ok());

  Weights others = std::move(weights);  // states stay with the weights, wherever these move
  EXPECT_TRUE(state.step(some_x(4), some_y(5)).ok());
  EXPECT_EQ(weights.isa(), nullptr);
  EXPECT_EQ(weights.bytes(), 0u);
  EXPECT_EQ(State::create(weights).code(), GRUC_INVALID_ARGUMENT);
  EXPECT_EQ(gru_core::forward(weights, {}).code(), GRUC_INVALID_ARGUMENT);
}

TEST_F(CppApi, WeightsFromCheckedArrays) {
  const auto layer = [&](size_t i) {
    const auto* a = &params.arrays[4 * i];
    return gru_core::layer_params(spec, i, {a[0], a[1], a[2], a[3]}).value();
  };
  const gruc_layer_params layers[] = {layer(0), layer(1)};
  State same = State::create(weights, 3).value();
  const Weights checked = Weights::create(spec, layers).value();
  State s = State::create(checked, 3).value();
  x = random.normals(36);
  std::vector<float> expected(45);
  same.process(3, x, expected).check();
  s.process(3, x, y).check();
  EXPECT_TRUE(same_bits(y, expected));
  EXPECT_EQ(checked.spec().num_layers, 2);
  EXPECT_FALSE(Weights::create(spec, {layers, 1}).ok());
}

TEST_F(CppApi, ParametersOfTheWrongSize) {
  spec.norm = GRUC_NORM_BATCH_STEP, spec.norm_steps = 3;
  gru_core::LayerParams right;
  const std::vector<float> floats(200);
  struct Field {
    const char* name;
    Span<const float> gru_core::LayerParams::* at;
    size_t size;
  };
  using P = gru_core::LayerParams;
  const Field fields[] = {
      {"weight_ih", &P::weight_ih, 60},  {"weight_hh", &P::weight_hh, 75},  {"bias_ih", &P::bias_ih, 15},
      {"bias_hh", &P::bias_hh, 15},      {"gain_ih", &P::gain_ih, 15},      {"gain_hh", &P::gain_hh, 15},
      {"gain_state", &P::gain_state, 5}, {"bias_state", &P::bias_state, 5}, {"mean_ih", &P::mean_ih, 45},
      {"var_ih", &P::var_ih, 45},        {"mean_hh", &P::mean_hh, 45},      {"var_hh", &P::var_hh, 45}};
  for (const Field& f : fields) right.*f.at = {floats.data(), f.size};
  EXPECT_TRUE(gru_core::layer_params(spec, 0, right).ok());
  for (const Field& f : fields) {
    P wrong = right;
    wrong.*f.at = {floats.data(), f.size + 1};
    EXPECT_EQ(
        std::string(gru_core::layer_params(spec, 0, wrong).message()),
        std::string(f.name) + ": expected " + std::to_string(f.size) + " elements, got " + std::to_string(f.size + 1));
  }
  EXPECT_STREQ(gru_core::layer_params(spec, 1, right).message(), "weight_ih: expected 75 elements, got 60");
  EXPECT_STREQ(gru_core::layer_params(spec, 2, right).message(), "index: expected less than 2, got 2");
  spec.norm = GRUC_NORM_BATCH_MIXED;
  EXPECT_STREQ(gru_core::layer_params(spec, 0, right).message(), "mean_ih: expected 15 elements, got 45");
}

TEST(CppModel, FromMemoryToAStep) {
  const FileBytes file = small_model(4, 5);
  const Model model = Model::from_memory(file.data(), file.size()).value();
  EXPECT_EQ(model.spec().input_size, 4);
  EXPECT_EQ(model.spec().hidden_size, 5);
  EXPECT_EQ(model.params().size(), 1u);
  ASSERT_EQ(model.h0().size(), 5u);
  EXPECT_EQ(model.h0()[4], 0.5f);
  EXPECT_TRUE(model.lengths().empty());
  const Weights weights = Weights::create(model).value();
  const Weights same = Weights::create(model.spec(), model.params()).value();
  std::vector<float> x(4, 1.0f), y(5), other(5);
  State state = State::create(weights).value(), another = State::create(same).value();
  state.step(x, y).check();
  another.step(x, other).check();
  EXPECT_TRUE(same_bits(y, other));
  EXPECT_GT(y[0], 0.0f);

  const auto* bytes = reinterpret_cast<const std::byte*>(file.data());
  EXPECT_FALSE(Model::from_memory({bytes, file.size() - 1}).ok());
  EXPECT_FALSE(Model::from_memory({}).ok());
}

TEST(CppModel, MovedFrom) {
  const FileBytes file = small_model(1, 2);
  Model model = Model::from_memory(file.data(), file.size()).value();
  const Model moved = std::move(model);
  EXPECT_EQ(moved.params().size(), 1u);
  EXPECT_TRUE(model.params().empty() && model.h0().empty() && model.lengths().empty());
  EXPECT_EQ(model.spec().hidden_size, 1);
  EXPECT_EQ(Weights::create(model).code(), GRUC_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace gruc::test
