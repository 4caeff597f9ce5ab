// The C ABI where it works: version, specs, streams in either memory, no heap in the hot path, errors per thread.
// Must not include the core's internals.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>

#include "support.h"

namespace gruc::test {
namespace {

TEST(CApi, Version) {
  EXPECT_STREQ(gruc_version(), GRUC_VERSION);
  EXPECT_EQ(gruc_abi_version(), static_cast<uint32_t>(GRUC_ABI_VERSION));
}

TEST(CApi, StatusNames) {
  EXPECT_STREQ(gruc_status_name(GRUC_OK), "GRUC_OK");
  EXPECT_STREQ(gruc_status_name(GRUC_INVALID_ARGUMENT), "GRUC_INVALID_ARGUMENT");
  EXPECT_STREQ(gruc_status_name(GRUC_OUT_OF_MEMORY), "GRUC_OUT_OF_MEMORY");
  EXPECT_STREQ(gruc_status_name(GRUC_UNSUPPORTED), "GRUC_UNSUPPORTED");
  EXPECT_STREQ(gruc_status_name(GRUC_INTERNAL), "GRUC_INTERNAL");
  EXPECT_NE(gruc_status_name(static_cast<gruc_status>(5)), nullptr);
}

TEST(CApi, DefaultSpecIsPyTorchs) {
  gruc_spec spec;
  std::memset(&spec, 0xff, sizeof spec);
  gruc_spec_init(&spec);
  EXPECT_EQ(spec.struct_size, sizeof spec);
  EXPECT_EQ(spec.num_layers, 1);
  EXPECT_EQ(spec.input_size, 1);
  EXPECT_EQ(spec.hidden_size, 1);
  EXPECT_EQ(spec.direction, GRUC_FORWARD);
  EXPECT_EQ(spec.reset, GRUC_RESET_AFTER);
  EXPECT_EQ(spec.update, GRUC_UPDATE_KEEP);
  EXPECT_EQ(spec.bias, GRUC_BIAS_BOTH);
  for (int d = 0; d < 2; ++d) {
    EXPECT_EQ(spec.gate_activation[d].kind, GRUC_SIGMOID);
    EXPECT_EQ(spec.activation[d].kind, GRUC_TANH);
  }
  EXPECT_EQ(spec.clip, std::numeric_limits<float>::infinity());
  EXPECT_EQ(gruc_spec_validate(&spec), GRUC_OK);
}

TEST(CApi, DefaultSequence) {
  Random random(1);
  const gruc_spec spec = make_spec(3, 5, 1, GRUC_BIDIRECTIONAL);
  const Network network(spec, Params(spec, random));
  gruc_sequence s;
  std::memset(&s, 0xff, sizeof s);
  ASSERT_EQ(gruc_sequence_init(network.weights(), 7, 2, &s), GRUC_OK);
  EXPECT_EQ(s.struct_size, sizeof s);
  EXPECT_EQ(s.threads, 1);
  EXPECT_EQ(s.steps, 7);
  EXPECT_EQ(s.batch, 2);
  EXPECT_EQ(s.x_batch_stride, 3);
  EXPECT_EQ(s.x_step_stride, 6);
  EXPECT_EQ(s.y_batch_stride, 10);
  EXPECT_EQ(s.y_step_stride, 20);
  for (const void* p :
       {static_cast<const void*>(s.x), static_cast<const void*>(s.lengths), static_cast<const void*>(s.h0),
        static_cast<const void*>(s.y), static_cast<const void*>(s.h_n), static_cast<const void*>(s.workspace)})
    EXPECT_EQ(p, nullptr);
}

TEST(CApi, MaxThreadsIsOneOrMore) {
  EXPECT_GE(gruc_max_threads(), 1);
  if (!CpuCount::available()) return;
  const CpuCount cpus(3);
  EXPECT_EQ(gruc_max_threads(), 3);
}

TEST(CApi, DestroyingNothingIsFine) {
  gruc_weights_destroy(nullptr);
  gruc_state_destroy(nullptr);
  EXPECT_EQ(gruc_weights_isa(nullptr), nullptr);
  EXPECT_EQ(gruc_weights_bytes(nullptr), 0u);
  gruc_spec_init(nullptr);
}

TEST(CApi, WeightsBytes) {
  Random random(2);
  const gruc_spec spec = make_spec(10, 20, 2);
  const Network network(spec, Params(spec, random));
  // Panels of 32 units in 3 gates, over 10 + 20 and 20 + 20 inputs, are the floor; the rest is small.
  const size_t panels = 32 * 3 * (10 + 20 + 20 + 20) * sizeof(float);
  EXPECT_GE(gruc_weights_bytes(network.weights()), panels);
  EXPECT_LE(gruc_weights_bytes(network.weights()), panels + 4096);
}

// --- streams -------------------------------------------------------------------------------------------------------

class Stream : public IsaTest {
 protected:
  static constexpr int64_t kBatch = 3, kSteps = 6;

  std::vector<float> outputs(gruc_state* state, const std::vector<float>& x, const gruc_spec& spec) {
    std::vector<float> y(static_cast<size_t>(kSteps * kBatch * spec.hidden_size));
    EXPECT_EQ(gruc_process(state, kSteps, x.data(), y.data()), GRUC_OK) << gruc_last_error();
    return y;
  }
};

TEST_P(Stream, InMemoryOfTheCaller) {
  Random random(3);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    gruc_spec spec = make_spec(5, 33, 2);
    spec.reset = reset;
    const Network network(spec, Params(spec, random));
    const auto x = random.normals(kSteps * kBatch * spec.input_size);
    gruc_state* created = nullptr;
    ASSERT_EQ(gruc_state_create(network.weights(), kBatch, &created), GRUC_OK);
    const auto expected = outputs(created, x, spec);
    gruc_state_destroy(created);

    size_t size = 0;
    ASSERT_EQ(gruc_state_size(network.weights(), kBatch, &size), GRUC_OK);
    std::vector<std::byte> memory(size + 128 + 256, std::byte{0xff});  // what it holds must not matter
    std::byte* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    gruc_state* state = nullptr;
    ASSERT_EQ(gruc_state_init(network.weights(), kBatch, aligned, size, &state), GRUC_OK) << gruc_last_error();
    EXPECT_TRUE(same_bits(outputs(state, x, spec), expected));
    for (int i = 0; i < 256; ++i) ASSERT_EQ(aligned[size + i], std::byte{0xff}) << "written past the end";
  }
}

TEST_P(Stream, SetAndGet) {
  Random random(4);
  const gruc_spec spec = make_spec(5, 17, 2);
  const Network network(spec, Params(spec, random));
  const auto x = random.normals(kSteps * kBatch * spec.input_size);
  gruc_state* state = nullptr;
  ASSERT_EQ(gruc_state_create(network.weights(), kBatch, &state), GRUC_OK);
  std::vector<float> h(static_cast<size_t>(states_of(spec, kBatch)), NAN);
  ASSERT_EQ(gruc_state_get(state, h.data()), GRUC_OK);
  EXPECT_TRUE(same_bits(h, std::vector<float>(h.size(), 0.0f))) << "a new state is zero";

  const auto first = outputs(state, x, spec);
  std::vector<float> middle(h.size());
  ASSERT_EQ(gruc_state_get(state, middle.data()), GRUC_OK);
  const auto second = outputs(state, x, spec);
  EXPECT_FALSE(same_bits(first, second));
  ASSERT_EQ(gruc_state_set(state, middle.data()), GRUC_OK);
  ASSERT_EQ(gruc_state_get(state, h.data()), GRUC_OK);
  EXPECT_TRUE(same_bits(h, middle));
  EXPECT_TRUE(same_bits(outputs(state, x, spec), second));
  ASSERT_EQ(gruc_state_set(state, nullptr), GRUC_OK);
  EXPECT_TRUE(same_bits(outputs(state, x, spec), first)) << "NULL is zeros";
  gruc_state_destroy(state);
}

// Also between the small networks' state, which is stepped in place, and one that went through blocks of odd length.
TEST_P(Stream, ResetAndCopy) {
  Random random(14);
  for (const int64_t batch : {int64_t{1}, kBatch})
    for (const int64_t hidden : {3, 17, 33}) {
      const gruc_spec spec = make_spec(5, hidden, 2);
      const Network network(spec, Params(spec, random));
      const auto x = random.normals(5 * batch * spec.input_size);
      gruc_state *state = nullptr, *twin = nullptr;
      ASSERT_EQ(gruc_state_create(network.weights(), batch, &state), GRUC_OK);
      ASSERT_EQ(gruc_state_create(network.weights(), batch, &twin), GRUC_OK);
      std::vector<float> fresh(static_cast<size_t>(5 * batch * hidden)), y(fresh), other(fresh);
      ASSERT_EQ(gruc_process(state, 5, x.data(), fresh.data()), GRUC_OK);
      ASSERT_EQ(gruc_step(twin, x.data(), y.data()), GRUC_OK);
      ASSERT_EQ(gruc_state_copy(twin, state), GRUC_OK) << gruc_last_error();
      EXPECT_EQ(gruc_state_position(twin), 5);
      ASSERT_EQ(gruc_state_copy(twin, twin), GRUC_OK);
      ASSERT_EQ(gruc_process(state, 3, x.data(), y.data()), GRUC_OK);
      for (int64_t t = 0; t < 3; ++t)
        ASSERT_EQ(gruc_step(twin, &x[t * batch * spec.input_size], &other[t * batch * hidden]), GRUC_OK);
      EXPECT_TRUE(same_bits(other, y));
      ASSERT_EQ(gruc_state_reset(state), GRUC_OK);
      EXPECT_EQ(gruc_state_position(state), 0);
      ASSERT_EQ(gruc_process(state, 5, x.data(), y.data()), GRUC_OK);
      EXPECT_TRUE(same_bits(y, fresh));
      gruc_state_destroy(twin);
      gruc_state_destroy(state);
    }
}

TEST(CApi, CopyWantsAStateOfTheSameSize) {
  Random random(15);
  const gruc_spec spec = make_spec(2, 5);
  const Network network(spec, Params(spec, random));
  gruc_state* state = nullptr;
  ASSERT_EQ(gruc_state_create(network.weights(), 2, &state), GRUC_OK);
  const auto refuses = [&](const gruc_spec& other, int64_t batch) {
    const Network from_network(other, Params(other, random));
    gruc_state* from = nullptr;
    ASSERT_EQ(gruc_state_create(from_network.weights(), batch, &from), GRUC_OK);
    EXPECT_TRUE(refused(gruc_state_copy(state, from), "from"));
    gruc_state_destroy(from);
  };
  refuses(spec, 3);
  refuses(make_spec(2, 6), 2);
  refuses(make_spec(2, 5, 2), 2);
  EXPECT_TRUE(refused(gruc_state_copy(state, nullptr), "from"));
  EXPECT_TRUE(refused(gruc_state_copy(nullptr, state), "state"));
  EXPECT_TRUE(refused(gruc_state_reset(nullptr), "state"));
  gruc_state_destroy(state);
}

TEST_P(Stream, OutputMayBeTheInput) {
  Random random(5);
  const gruc_spec spec = make_spec(17, 17, 2);
  const Network network(spec, Params(spec, random));
  auto x = random.normals(kSteps * kBatch * spec.input_size);
  gruc_state* state = nullptr;
  ASSERT_EQ(gruc_state_create(network.weights(), kBatch, &state), GRUC_OK);
  const auto expected = outputs(state, x, spec);
  ASSERT_EQ(gruc_state_set(state, nullptr), GRUC_OK);
  ASSERT_EQ(gruc_process(state, kSteps, x.data(), x.data()), GRUC_OK);
  EXPECT_TRUE(same_bits(x, expected));
  gruc_state_destroy(state);
}

TEST_P(Stream, NoRowsAndNoSteps) {
  Random random(6);
  const gruc_spec spec = make_spec(4, 5);
  const Network network(spec, Params(spec, random));
  gruc_state* state = nullptr;
  ASSERT_EQ(gruc_state_create(network.weights(), 0, &state), GRUC_OK) << gruc_last_error();
  EXPECT_EQ(gruc_step(state, nullptr, nullptr), GRUC_OK);
  gruc_state_destroy(state);
  ASSERT_EQ(gruc_state_create(network.weights(), 1, &state), GRUC_OK);
  EXPECT_EQ(gruc_process(state, 0, nullptr, nullptr), GRUC_OK);
  gruc_state_destroy(state);
}

TEST_P(Stream, ManyOnTheSameWeights) {
  Random random(7);
  const gruc_spec spec = make_spec(5, 17);
  const Network network(spec, Params(spec, random));
  const auto x = random.normals(kSteps * kBatch * spec.input_size), noise = random.normals(kBatch * spec.input_size);
  gruc_state *a = nullptr, *b = nullptr;
  ASSERT_EQ(gruc_state_create(network.weights(), kBatch, &a), GRUC_OK);
  ASSERT_EQ(gruc_state_create(network.weights(), kBatch, &b), GRUC_OK);
  const auto expected = outputs(a, x, spec);
  ASSERT_EQ(gruc_state_set(a, nullptr), GRUC_OK);
  std::vector<float> y(expected.size()), ignored(static_cast<size_t>(kBatch * spec.hidden_size));
  for (int64_t t = 0; t < kSteps; ++t) {
    ASSERT_EQ(gruc_step(a, &x[t * kBatch * spec.input_size], &y[t * kBatch * spec.hidden_size]), GRUC_OK);
    ASSERT_EQ(gruc_step(b, noise.data(), ignored.data()), GRUC_OK);
  }
  EXPECT_TRUE(same_bits(y, expected));
  gruc_state_destroy(a);
  gruc_state_destroy(b);
}

// The contract of a step, of its errors, and of a call that brings its workspace.
TEST_P(Stream, NothingTouchesTheHeap) {
  if (heap_calls() < 0) GTEST_SKIP() << "heap calls cannot be counted here";
  {
    const int64_t before = heap_calls();
    void* (*volatile allocate)(size_t) = std::malloc;  // volatile, lest the compiler drop both calls
    void* volatile probe = allocate(16);
    std::free(probe);
    int* volatile number = new int(1);
    delete number;
    ASSERT_GE(heap_calls(), before + 4) << "the counter does not count";
  }
  Random random(8);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    gruc_spec spec = make_spec(5, 33, 2);
    spec.reset = reset;
    spec.activation[0].kind = reset == GRUC_RESET_AFTER ? GRUC_TANH : GRUC_SOFTPLUS;
    const Network network(spec, Params(spec, random));
    const Problem p = make_problem(spec, kSteps, kBatch, random, Lengths::kRagged, Start::kRandom);
    const auto x = random.normals(kSteps * kBatch * spec.input_size);
    std::vector<float> y(static_cast<size_t>(kSteps * kBatch * spec.hidden_size));
    gruc_state* state = nullptr;
    ASSERT_EQ(gruc_state_create(network.weights(), kBatch, &state), GRUC_OK);
    gruc_sequence s;
    ASSERT_EQ(gruc_sequence_init(network.weights(), kSteps, kBatch, &s), GRUC_OK);
    s.x = p.x.data();
    s.lengths = p.lengths.data();
    s.y = y.data();
    ASSERT_EQ(gruc_forward_workspace(network.weights(), &s, &s.workspace_size), GRUC_OK);
    s.workspace = std::aligned_alloc(64, s.workspace_size);
    ASSERT_NE(s.workspace, nullptr);

    const int64_t before = heap_calls();
    gruc_status worst = GRUC_OK;
    const auto note = [&](gruc_status status) { worst = worst == GRUC_OK ? status : worst; };
    for (int i = 0; i < 20; ++i) note(gruc_step(state, x.data(), y.data()));
    note(gruc_process(state, kSteps, x.data(), y.data()));
    note(gruc_state_set(state, nullptr));
    note(gruc_forward(network.weights(), &s));
    const bool refused = gruc_step(state, nullptr, y.data()) == GRUC_INVALID_ARGUMENT;
    const int64_t calls = heap_calls() - before;

    EXPECT_EQ(calls, 0);
    EXPECT_EQ(worst, GRUC_OK);
    EXPECT_TRUE(refused);
    std::free(s.workspace);
    gruc_state_destroy(state);
  }
}
GRUC_FOR_EVERY_ISA(Stream);

TEST(CApi, StreamsOfReverseDirectionsAreRefused) {
  Random random(9);
  for (const int32_t direction : {GRUC_REVERSE, GRUC_BIDIRECTIONAL}) {
    const gruc_spec spec = make_spec(4, 5, 1, direction);
    const Network network(spec, Params(spec, random));
    gruc_state* state = nullptr;
    size_t size = 0;
    alignas(64) std::byte memory[4096];
    EXPECT_EQ(gruc_state_create(network.weights(), 1, &state), GRUC_INVALID_ARGUMENT);
    EXPECT_NE(std::strstr(gruc_last_error(), "direction"), nullptr) << gruc_last_error();
    EXPECT_EQ(gruc_state_size(network.weights(), 1, &size), GRUC_INVALID_ARGUMENT);
    EXPECT_EQ(gruc_state_init(network.weights(), 1, memory, sizeof memory, &state), GRUC_INVALID_ARGUMENT);
    EXPECT_EQ(state, nullptr);
  }
}

TEST(CApi, ErrorsArePerThread) {
  EXPECT_EQ(gruc_spec_validate(nullptr), GRUC_INVALID_ARGUMENT);
  const std::string here = gruc_last_error();
  EXPECT_NE(here.find("spec"), std::string::npos);
  std::string there_before, there_after;
  std::thread([&] {
    there_before = gruc_last_error();
    gruc_state_get(nullptr, nullptr);
    there_after = gruc_last_error();
  }).join();
  EXPECT_EQ(there_before, "");
  EXPECT_NE(there_after.find("state"), std::string::npos);
  EXPECT_EQ(here, gruc_last_error());
}

}  // namespace
}  // namespace gruc::test
