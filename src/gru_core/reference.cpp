// See reference.h. Cho et al. 2014 (arXiv 1406.1078), with the variants that gru_core.h names.
#include "reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace gruc::reference {

double activate(const gruc_activation& f, double x) {
  const double a = f.alpha, b = f.beta;
  switch (f.kind) {
    case GRUC_SIGMOID:
      return 1.0 / (1.0 + std::exp(-x));
    case GRUC_TANH:
      return std::tanh(x);
    case GRUC_RELU:
      return x > 0.0 ? x : 0.0;
    case GRUC_AFFINE:
      return a * x + b;
    case GRUC_LEAKY_RELU:
      return x < 0.0 ? a * x : x;
    case GRUC_THRESHOLDED_RELU:
      return x > a ? x : 0.0;
    case GRUC_SCALED_TANH:
      return a * std::tanh(b * x);
    case GRUC_HARD_SIGMOID:
      return std::min(1.0, std::max(0.0, a * x + b));
    case GRUC_ELU:
      return x < 0.0 ? a * std::expm1(x) : x;
    case GRUC_SOFTSIGN:
      return std::isinf(x) ? std::copysign(1.0, x) : x / (1.0 + std::fabs(x));
    case GRUC_SOFTPLUS:
      return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x)));
  }
  return x;
}

namespace {

// One layer in one direction.
class Layer {
 public:
  Layer(const Spec& spec, const gruc_layer_params& p, int64_t input_size, int64_t direction)
      : spec_(spec), p_(p), inputs_(input_size), hidden_(spec.hidden_size), direction_(direction) {}

  // h' -> h for the input x of one row
  std::vector<double> step(const double* x, const std::vector<double>& h) const {
    const gruc_activation& gate = spec_.gate_activation[direction_];
    std::vector<double> r(h.size()), z(h.size()), reset_h(h.size()), next(h.size());
    for (int64_t j = 0; j < hidden_; ++j) {
      r[j] = bounded(gate, input(0, j, x) + recurrent(0, j, h));
      z[j] = bounded(gate, input(1, j, x) + recurrent(1, j, h));
      reset_h[j] = r[j] * h[j];
    }
    for (int64_t j = 0; j < hidden_; ++j) {
      const double inner = spec_.reset == GRUC_RESET_AFTER ? r[j] * recurrent(2, j, h) : recurrent(2, j, reset_h);
      const double n = bounded(spec_.activation[direction_], input(2, j, x) + inner);
      next[j] = spec_.update == GRUC_UPDATE_KEEP ? z[j] * h[j] + (1.0 - z[j]) * n : (1.0 - z[j]) * h[j] + z[j] * n;
    }
    return next;
  }

 private:
  double bounded(const gruc_activation& f, double x) const {
    const double clip = spec_.clip;
    return activate(f, x < -clip ? -clip : (x > clip ? clip : x));
  }
  double input(int64_t gate, int64_t j, const double* x) const {
    const int64_t row = gate * hidden_ + j;
    double sum = p_.bias_ih == nullptr ? 0.0 : p_.bias_ih[row];
    for (int64_t i = 0; i < inputs_; ++i) sum += static_cast<double>(p_.weight_ih[row * inputs_ + i]) * x[i];
    return sum;
  }
  double recurrent(int64_t gate, int64_t j, const std::vector<double>& h) const {
    const int64_t row = gate * hidden_ + j;
    double sum = p_.bias_hh == nullptr ? 0.0 : p_.bias_hh[row];
    for (int64_t k = 0; k < hidden_; ++k) sum += static_cast<double>(p_.weight_hh[row * hidden_ + k]) * h[k];
    return sum;
  }

  const Spec& spec_;
  const gruc_layer_params& p_;
  int64_t inputs_, hidden_, direction_;
};

}  // namespace

void forward(const Spec& spec, const gruc_layer_params* params, int64_t steps, int64_t batch, const double* x,
             const int64_t* lengths, const double* h0, double* y, double* h_n) {
  const int64_t hidden = spec.hidden_size, width = directions(spec) * hidden;
  std::vector<double> in(x, x + steps * batch * spec.input_size);
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const int64_t inputs = layer_input_size(spec, l);
    std::vector<double> out(static_cast<size_t>(steps * batch * width), 0.0);
    for (int64_t d = 0; d < directions(spec); ++d) {
      const int64_t index = l * directions(spec) + d;
      const Layer layer(spec, params[index], inputs, d);
      const bool reverse = d == 1 || spec.direction == GRUC_REVERSE;
      for (int64_t b = 0; b < batch; ++b) {
        const int64_t state = (index * batch + b) * hidden;
        std::vector<double> h(static_cast<size_t>(hidden), 0.0);
        if (h0 != nullptr) std::copy(h0 + state, h0 + state + hidden, h.begin());
        const int64_t length = lengths == nullptr ? steps : lengths[b];
        for (int64_t s = 0; s < length; ++s) {
          const int64_t t = reverse ? length - 1 - s : s;
          h = layer.step(in.data() + (t * batch + b) * inputs, h);
          std::copy(h.begin(), h.end(), out.begin() + (t * batch + b) * width + d * hidden);
        }
        std::copy(h.begin(), h.end(), h_n + state);
      }
    }
    in = std::move(out);
  }
  std::copy(in.begin(), in.end(), y);
}

}  // namespace gruc::reference
