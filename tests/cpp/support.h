// What the C++ tests share: random data, forced ISAs, networks with their weights, runs, comparison bit by bit.
// Everything is drawn from a generator of our own, so that every platform tests the same numbers.
// Must not include kernels: only the tests of kernels know them.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "gru_core/gru_core.h"

namespace gruc::test {

// splitmix64
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits();
  int64_t integer(int64_t low, int64_t high);  // both included
  double uniform(double low, double high);
  double normal();
  std::vector<float> uniforms(int64_t count, double bound);  // in [-bound, bound)
  std::vector<float> normals(int64_t count, double deviation = 1.0);

 private:
  uint64_t state_;
};

// The ISAs that this machine runs, best first.
std::vector<std::string> supported_isas();

// GRUC_THREADS has this value, or is unset (nullptr), until the end of the scope; "all" everywhere else.
struct Threads {
  explicit Threads(const char* value);
  ~Threads();
};

// GRUC_ISA has this value, or is unset (nullptr), until the end of the scope.
class ForcedIsa {
 public:
  explicit ForcedIsa(const char* name);
  explicit ForcedIsa(const std::string& name) : ForcedIsa(name.c_str()) {}
  ForcedIsa(const ForcedIsa&) = delete;
  ForcedIsa& operator=(const ForcedIsa&) = delete;
  ~ForcedIsa();

 private:
  bool was_set_;
  std::string before_;
};

// The library sees this many CPUs until the end of the scope; teams larger than the machine come from here.
class CpuCount {
 public:
  explicit CpuCount(int count) : CpuCount(count, count) {}
  CpuCount(int first, int later);  // the next time that somebody counts, and from then on
  CpuCount(const CpuCount&) = delete;
  CpuCount& operator=(const CpuCount&) = delete;
  ~CpuCount();
  static bool available();  // where the library's way of counting can be intercepted

 private:
  [[maybe_unused]] int before_;
};

// Calls of the C heap's functions in the whole process so far; -1 where they cannot be counted.
int64_t heap_calls();

// A test that runs once per ISA, with the ISA forced.
class IsaTest : public ::testing::TestWithParam<std::string> {
 protected:
  IsaTest() : forced_(GetParam()) {}

 private:
  ForcedIsa forced_;
};

#define GRUC_FOR_EVERY_ISA(Suite)                                                           \
  INSTANTIATE_TEST_SUITE_P(Isa, Suite, ::testing::ValuesIn(::gruc::test::supported_isas()), \
                           [](const ::testing::TestParamInfo<std::string>& i) { return i.param; })

gruc_spec make_spec(int64_t input_size, int64_t hidden_size, int32_t layers = 1, int32_t direction = GRUC_FORWARD);
int64_t directions_of(const gruc_spec& spec);
int64_t states_of(const gruc_spec& spec, int64_t batch);  // floats of h0 and h_n
int64_t width_of(const gruc_spec& spec);                  // columns of y

// Random parameters, uniform in [-scale / sqrt(H), scale / sqrt(H)] as PyTorch draws them at scale 1.
struct Params {
  Params(const gruc_spec& spec, Random& random, double scale = 1.0);
  std::vector<std::vector<float>> arrays;  // four for each layer and direction; empty: none
  std::vector<std::vector<float>> norms;   // eight: gains, bias_state, means and variances as in gruc_layer_params
  std::vector<gruc_layer_params> layers;

 private:
  void add_norms(const gruc_spec& spec, Random& random);
};

// A network whose weights are packed for the ISA that is active now.
class Network {
 public:
  Network(const gruc_spec& spec, const Params& params);
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  ~Network() { gruc_weights_destroy(weights_); }
  const gruc_spec& spec() const { return spec_; }
  const gruc_weights* weights() const { return weights_; }

 private:
  gruc_spec spec_;
  gruc_weights* weights_ = nullptr;
};

// The input of one call, in the default layout [T, B, ...]. x beyond a row's length is NaN.
struct Problem {
  int64_t steps = 0;
  int64_t batch = 0;
  std::vector<float> x;
  std::vector<int64_t> lengths;  // empty: all `steps`
  std::vector<float> h0;         // empty: zeros

  // Row b alone, cut to its length.
  Problem row(const gruc_spec& spec, int64_t b) const;
};
enum class Lengths { kWhole, kRagged };
enum class Start { kZero, kRandom };
Problem make_problem(const gruc_spec& spec, int64_t steps, int64_t batch, Random& random,
                     Lengths lengths = Lengths::kWhole, Start start = Start::kZero);

struct Result {
  std::vector<float> y;    // [T, B, D*H]
  std::vector<float> h_n;  // [L*D, B, H]

  Result row(const gruc_spec& spec, int64_t steps, int64_t batch, int64_t b, int64_t length) const;
};
// gruc_forward; `adjust` may change the call before it is made.
Result run(const Network& network, const Problem& problem, int threads = 1,
           const std::function<void(gruc_sequence&)>& adjust = nullptr);

// The same bits; any NaN equals any other.
::testing::AssertionResult same_bits(const std::vector<float>& a, const std::vector<float>& b);
::testing::AssertionResult same_bits(const Result& a, const Result& b);

// A call that failed so, with words that name something.
::testing::AssertionResult refused(gruc_status status, const char* named, gruc_status wanted = GRUC_INVALID_ARGUMENT);

uint32_t bits_of_float(float x);
float float_of_bits(uint32_t bits);

}  // namespace gruc::test
