// gru_core.hpp as a stranger compiles it: built without exceptions and RTTI, as C++17 and C++20, against the shared
// library, with every warning an error. A program of its own.
// Must not include GoogleTest, which has exceptions, nor anything of the core but its header.
#include <array>
#include <cstdio>
#include <cstring>
#include <gru_core/gru_core.hpp>
#include <utility>
#if __cplusplus >= 202002L
#include <span>
#endif

#include "cpp_api.h"

#if defined(__cpp_exceptions) == defined(GRUC_NO_EXCEPTIONS)
#error "the header does not see whether there are exceptions"
#endif

namespace {

int g_wrong = 0;

void expect(bool right, const char* what) {
  if (!right) std::fprintf(stderr, "wrong: %s\n", what), ++g_wrong;
}
#define EXPECT(condition) expect(condition, #condition)

using gru_core::Model;
using gru_core::Span;
using gru_core::State;
using gru_core::Weights;

void run() {
  const gruc::test::FileBytes file = gruc::test::small_model(2, 3);
  auto model = Model::from_memory(file.data(), file.size());
  if (!model.ok()) return expect(false, model.message());
  auto weights = Weights::create(*model);
  if (!weights.ok()) return expect(false, weights.message());
  auto state = State::create(*weights);
  if (!state.ok()) return expect(false, state.message());

  std::array<float, 2> x = {1.0f, -0.5f};
  float y[3] = {};
  EXPECT(state->step(x, y).ok());
  EXPECT(state->position() == 1);

  gruc_state* plain = nullptr;
  float expected[3] = {};
  EXPECT(gruc_state_create(weights->get(), 1, &plain) == GRUC_OK);
  EXPECT(gruc_step(plain, x.data(), expected) == GRUC_OK);
  gruc_state_destroy(plain);
  EXPECT(std::memcmp(y, expected, sizeof y) == 0 && y[0] > 0.0f);

  const std::vector<float> three(3);
  EXPECT(state->step(three, y).message() == "x: expected 2 elements, got 3");
  auto missing = Model::load("no such file");
  EXPECT(!missing.ok() && missing.code() == GRUC_INVALID_ARGUMENT);
  EXPECT(std::string(missing.message()).find("no such file") != std::string::npos);

  State moved = *std::move(state);
  EXPECT(moved.step(x, y).ok());
  EXPECT(state->step(x, y).code() == GRUC_INVALID_ARGUMENT);

  std::vector<float> sequence(2 * 4), out(3 * 4);
  gru_core::Sequence s;
  s.steps = 4;
  s.x = sequence;
  s.y = out;
  EXPECT(gru_core::forward(*weights, s).ok());
#if __cplusplus >= 202002L
  EXPECT(gru_core::forward(*weights, {.steps = 4, .x = sequence, .y = out}).ok());
  const std::span<const float> first = std::span(sequence).first(2);
  EXPECT(moved.step(first, std::span(y)).ok());
  const std::span<const float> h0 = model->h0();
  EXPECT(h0.size() == 3);
#endif
#if !defined(GRUC_NO_EXCEPTIONS)
  EXPECT(State::bytes(*weights).value() > 0);
#endif
}

// Files of both ways may stand in one program only if their types are not the same to the linker.
#if defined(GRUC_NO_EXCEPTIONS)
static_assert(std::is_same_v<State, gru_core::without_exceptions::State>);
#else
static_assert(std::is_same_v<State, gru_core::with_exceptions::State>);
#endif

static_assert(std::is_convertible_v<std::vector<float>&, Span<float>>);
static_assert(std::is_convertible_v<const std::vector<float>&, Span<const float>>);
static_assert(std::is_convertible_v<Span<float>, Span<const float>>);
static_assert(!std::is_convertible_v<const std::vector<float>&, Span<float>>);
static_assert(!std::is_convertible_v<std::vector<float>, Span<float>>, "memory that is gone at once");
static_assert(!std::is_convertible_v<std::vector<double>&, Span<const float>>);
static_assert(!std::is_convertible_v<Span<const float>, Span<float>>);

}  // namespace

int main() {
  run();
  std::printf("gru_core.hpp, C++%ld: %d wrong\n", static_cast<long>(__cplusplus / 100 % 100), g_wrong);
  return g_wrong == 0 ? 0 : 1;
}
