// A stream of the header of fixed sizes, in the instructions that the file which includes this is compiled for.
// Must not include anything of the core but its public headers.
#pragma once
#include <vector>

#include "gru_core/gru_core_fixed.hpp"
#include "networks.h"

namespace gruc::test {

template <gru_core::fixed::Reset kReset>
class FixedStream {
  static constexpr int kInput = 5, kHidden = 17, kSteps = 3;

 public:
  FixedStream() : random_(4) {
    const Params params(make_spec(kInput, kHidden), random_);
    const gruc_layer_params& layer = params.layers[0];
    weights_.set(layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh);
    restart(Kind::kRandom);
  }
  void restart(Kind kind) {
    state_.set(numbers(kind, kHidden, random_).data());
    x_ = numbers(kind, kSteps * kInput, random_);
  }
  bool step() noexcept GRUC_NONBLOCKING {
    gru_core::fixed::step(weights_, state_, x_.data(), y_);
    return true;
  }
  bool process() noexcept GRUC_NONBLOCKING {
    gru_core::fixed::process(weights_, state_, kSteps, x_.data(), y_);
    return true;
  }

 private:
  Random random_;
  gru_core::fixed::Weights<kInput, kHidden, kReset> weights_;
  gru_core::fixed::State<kHidden> state_;
  std::vector<float> x_;
  float y_[kSteps * kHidden];
};

}  // namespace gruc::test
