// What the tests of training share: taped calls, gradients in and out, dropout's masks, the oracle's gradients.
// Must not include kernels.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "reference.h"
#include "support.h"

namespace gruc::test {

// Memory of `size` bytes, aligned to 64, between two fences that show whether somebody wrote past an end.
class Guarded {
 public:
  explicit Guarded(size_t size, unsigned char fill = 0xff);
  Guarded(Guarded&&) = default;  // a copy would lie elsewhere, aligned otherwise
  Guarded& operator=(Guarded&&) = default;
  void* data() { return bytes_.data() + begin_; }
  const void* data() const { return bytes_.data() + begin_; }
  size_t size() const { return size_; }
  bool intact() const;
  std::vector<unsigned char> contents() const;

 private:
  static constexpr size_t kFence = 4096;
  size_t size_, begin_;
  std::vector<unsigned char> bytes_;
};

// How a network is trained; `sequence` and `gradients` may change the calls before they are made.
struct How {
  bool recompute = false;
  float dropout = 0.0f;
  uint64_t seed = 0;
  int threads = 1;
  std::function<void(gruc_sequence&)> sequence = nullptr;
  std::function<void(gruc_gradients&)> gradients = nullptr;

  gruc_training training() const;
};

// gruc_forward_train, with a tape of exactly the size that gruc_tape_size says.
struct Taped {
  Result result;
  Guarded tape;
};
Taped train(const Network& network, const Problem& problem, const How& how = {});

// What comes into backward; empty: NULL. dy beyond a row's length is NaN.
struct Incoming {
  std::vector<float> dy, dh_n;
};
Incoming make_incoming(const gruc_spec& spec, const Problem& problem, Random& random);

// Where gradients go; empty: not wanted. For each layer and direction params has the four of Params::arrays, norms the
// first four of Params::norms.
struct Gradients {
  std::vector<float> x, h0;
  std::vector<std::vector<float>> params, norms;

  std::vector<std::vector<float>*> arrays();
  // Of every array from number `begin` on.
  std::vector<gruc_layer_gradients> layers(size_t begin = 0);
};
// All that there are.
Gradients zeros(const gruc_spec& spec, const Problem& problem);
// gruc_backward, added to `into`.
Gradients gradients(const Network& network, const Problem& problem, const How& how, const Taped& taped,
                    const Incoming& incoming, Gradients into);
// Both calls, from zeros, for all gradients.
Gradients gradients(const Network& network, const Problem& problem, const How& how, const Incoming& incoming);

// `factors` as reference.h has them.
reference::Gradients exact_gradients(const gruc_spec& spec, const Params& params, const Problem& problem,
                                     const Incoming& incoming, const std::vector<double>& factors = {});
// The largest difference of any array, relative to its largest entry; infinity where one is NaN, or where not all are
// zero that should be.
double distance(Gradients got, const reference::Gradients& expected);

::testing::AssertionResult same_bits(Gradients a, Gradients b);

// What gru_core.h says of dropout, written down once more: the factor of each of `count` outputs of a layer.
std::vector<float> dropout_factors(float dropout, uint64_t seed, uint32_t layer, int64_t count);
// Of all layers but the last, as reference.h has them.
std::vector<double> all_dropout_factors(const gruc_spec& spec, const Problem& problem, const How& how);
struct PhiloxWords {
  uint32_t word[4];
};
// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
PhiloxWords philox4x32_10(PhiloxWords counter, uint32_t key_low, uint32_t key_high);

std::string describe(const gruc_spec& spec, const Problem& problem);

// Networks that between them take every path of backward: both resets, both updates, activations, clip, biases, stacks,
// directions, sizes around the block of 16 and the strip of 24.
std::vector<gruc_spec> training_networks();

}  // namespace gruc::test
