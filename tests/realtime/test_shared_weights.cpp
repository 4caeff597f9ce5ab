// Weights that many streams on many threads share: the right bits, and under ThreadSanitizer no race. One thread a
// call, so that all is the library's own code: OpenMP's is not watched. Must not include anything but the public
// header.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "networks.h"

namespace gruc::test {
namespace {

constexpr int kThreads = 8;

class SharedWeights : public IsaTest {};

// Threads that begin together; true where all said so.
template <class Work>
bool on_all_threads(const Work& work) {
  std::atomic<int> ready{0}, right{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] {
      ready.fetch_add(1);
      while (ready.load() < kThreads) std::this_thread::yield();
      right.fetch_add(work(i) ? 1 : 0);
    });
  for (std::thread& t : threads) t.join();
  return right.load() == kThreads;
}

std::vector<Case> networks() {
  std::vector<Case> cases = variants();
  cases.push_back({make_spec(16, 16), 1});
  cases.push_back({make_spec(7, 100, 2), 4});
  return cases;
}

struct Destroy {
  void operator()(gruc_state* state) const { gruc_state_destroy(state); }
};
using State = std::unique_ptr<gruc_state, Destroy>;

State make_state(const Network& network, int64_t batch) {
  gruc_state* state = nullptr;
  EXPECT_EQ(gruc_state_create(network.weights(), batch, &state), GRUC_OK) << gruc_last_error();
  return State(state);
}

// Steps one by one, then a block: [steps, B, H] each.
struct Feed {
  const Network& network;
  int64_t batch, steps;
  std::vector<float> x;

  int64_t inputs() const { return batch * network.spec().input_size; }
  int64_t outputs() const { return batch * network.spec().hidden_size; }
  bool single(gruc_state* state, int64_t t, float* y) const {
    return gruc_step(state, x.data() + t * inputs(), y + t * outputs()) == GRUC_OK;
  }
  std::vector<float> all() const {
    std::vector<float> y(static_cast<size_t>(2 * steps * outputs()));
    const State state = make_state(network, batch);
    bool right = true;
    for (int64_t t = 0; t < steps; ++t) right &= single(state.get(), t, y.data());
    right &= gruc_process(state.get(), steps, x.data(), y.data() + steps * outputs()) == GRUC_OK;
    return right ? y : std::vector<float>();
  }
};

TEST_P(SharedWeights, StreamsOnManyThreads) {
  Random random(3);
  for (const Case& c : networks()) {
    SCOPED_TRACE(c.name());
    const Network network(c.spec, Params(c.spec, random));
    Feed feed{network, c.batch, 5, {}};
    feed.x = random.normals(feed.steps * feed.inputs());
    const std::vector<float> alone = feed.all();
    ASSERT_FALSE(alone.empty());
    EXPECT_TRUE(on_all_threads([&](int) { return same_bits(feed.all(), alone); }));
  }
}

// A state goes from hand to hand; who has it next waits for who had it.
TEST_P(SharedWeights, StatesThatMigrate) {
  Random random(4);
  const Case c{make_spec(5, 33, 2), 3};
  const Network network(c.spec, Params(c.spec, random));
  Feed feed{network, c.batch, 64, {}};
  feed.x = random.normals(feed.steps * feed.inputs());
  std::vector<float> alone = feed.all();
  alone.resize(alone.size() / 2);
  std::vector<State> states;
  for (int i = 0; i < kThreads; ++i) states.push_back(make_state(network, c.batch));
  std::vector<std::vector<float>> y(kThreads, std::vector<float>(alone.size()));
  std::atomic<int64_t> turns[kThreads] = {};  // whose step is due
  EXPECT_TRUE(on_all_threads([&](int thread) {
    bool right = true;
    for (int64_t t = 0; t < feed.steps; ++t) {
      const auto i = static_cast<size_t>((thread + t) % kThreads);
      while (turns[i].load(std::memory_order_acquire) != t) std::this_thread::yield();
      right &= feed.single(states[i].get(), t, y[i].data());
      turns[i].store(t + 1, std::memory_order_release);
    }
    return right;
  }));
  for (const auto& one : y) EXPECT_TRUE(same_bits(one, alone));
}

// A forward and a training call with its gradients: y, then dx and all gradients of weights.
std::vector<float> train(const Network& network, const Problem& p) {
  const gruc_spec& spec = network.spec();
  std::vector<float> y = run(network, p).y, dy(y.size(), 0.5f), dx(p.x.size());
  gruc_sequence s;
  gruc_training training;
  gruc_gradients g;
  gruc_training_init(&training);
  training.dropout = 0.25f;
  bool right = gruc_sequence_init(network.weights(), p.steps, p.batch, &s) == GRUC_OK &&
               gruc_gradients_init(network.weights(), p.steps, p.batch, &g) == GRUC_OK;
  s.x = p.x.data();
  std::vector<float> taped(y.size()), weights(static_cast<size_t>(3 * spec.hidden_size * spec.hidden_size));
  s.y = taped.data();
  size_t size = 0;
  right = right && gruc_tape_size(network.weights(), &s, &training, &size) == GRUC_OK;
  const std::unique_ptr<void, decltype(&std::free)> tape(std::aligned_alloc(64, (size + 63) / 64 * 64), &std::free);
  right = right && gruc_forward_train(network.weights(), &s, &training, tape.get(), size) == GRUC_OK;
  std::vector<gruc_layer_gradients> layers(static_cast<size_t>(spec.num_layers));
  layers.back().weight_hh = weights.data();
  g.dy = dy.data();
  g.dx = dx.data();
  g.params = layers.data();
  right = right && gruc_backward(network.weights(), &s, &training, tape.get(), size, &g) == GRUC_OK;
  if (!right) return {};
  for (const auto* part : {&taped, &dx, &weights}) y.insert(y.end(), part->begin(), part->end());
  return y;
}

TEST_P(SharedWeights, SequencesAndGradientsOnManyThreads) {
  Random random(5);
  for (const int32_t norm : {GRUC_NORM_NONE, GRUC_NORM_LAYER_GATES})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
      gruc_spec spec = make_spec(5, 33, 2);
      spec.norm = norm;
      spec.reset = reset;
      const Network network(spec, Params(spec, random));
      const Problem p = make_problem(spec, 6, 3, random);
      const std::vector<float> alone = train(network, p);
      ASSERT_FALSE(alone.empty()) << gruc_last_error();
      EXPECT_TRUE(on_all_threads([&](int) { return same_bits(train(network, p), alone); }));
    }
}

// Weights are packed, and errors reported, while others step.
TEST_P(SharedWeights, PackingAndErrorsBesideSteps) {
  Random random(6);
  const Case c{make_spec(5, 33), 1};
  const Params params(c.spec, random);
  const Network network(c.spec, params);
  Feed feed{network, c.batch, 20, {}};
  feed.x = random.normals(feed.steps * feed.inputs());
  const std::vector<float> alone = feed.all();
  EXPECT_TRUE(on_all_threads([&](int thread) {
    const std::string own = std::to_string(-1 - thread);
    bool right = true;
    for (int i = 0; i < 20; ++i) {
      const char* isa = nullptr;
      right &= gruc_isa_active(&isa) == GRUC_OK && isa == GetParam();
      size_t size = 0;
      right &= gruc_state_size(network.weights(), -1 - thread, &size) == GRUC_INVALID_ARGUMENT;
      const Network other(c.spec, params);
      Feed again{other, c.batch, feed.steps, feed.x};
      right &= bool(same_bits((thread % 2 == 0 ? feed : again).all(), alone));
      right &= std::strstr(gruc_last_error(), own.c_str()) != nullptr;
    }
    return right;
  }));
}

#if defined(__SANITIZE_THREAD__)
// One state in many hands at once: what a caller must not do.
void race() {
  Random random(7);
  const gruc_spec spec = make_spec(5, 17);
  const Network network(spec, Params(spec, random));
  const State state = make_state(network, 1);
  const std::vector<float> x(5);
  std::vector<float> y(17 * kThreads);
  on_all_threads([&](int thread) { return gruc_step(state.get(), x.data(), y.data() + 17 * thread) == GRUC_OK; });
}

TEST(SharedWeightsDeathTest, TheSanitizerSeesARace) {
  EXPECT_EXIT((race(), std::exit(0)), ::testing::ExitedWithCode(66), "data race");
}
#endif

GRUC_FOR_EVERY_ISA(SharedWeights);

}  // namespace
}  // namespace gruc::test
