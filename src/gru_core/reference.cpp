// See reference.h. Cho et al. 2014 (arXiv 1406.1078), with the variants that gru_core.h names; backward is the chain
// rule on these equations, written out below.
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

double slope(const gruc_activation& f, double x) {
  const double a = f.alpha, b = f.beta;
  switch (f.kind) {
    case GRUC_SIGMOID: {
      const double y = activate(f, x);
      return y * (1.0 - y);
    }
    case GRUC_TANH:
      return 1.0 - std::tanh(x) * std::tanh(x);
    case GRUC_RELU:
      return x > 0.0 ? 1.0 : 0.0;
    case GRUC_AFFINE:
      return a;
    case GRUC_LEAKY_RELU:
      return x > 0.0 ? 1.0 : a;
    case GRUC_THRESHOLDED_RELU:
      return x > a ? 1.0 : 0.0;
    case GRUC_SCALED_TANH:
      return a * b * (1.0 - std::tanh(b * x) * std::tanh(b * x));
    case GRUC_HARD_SIGMOID:
      return a * x + b > 0.0 && a * x + b < 1.0 ? a : 0.0;
    case GRUC_ELU:
      return x > 0.0 ? 1.0 : a * std::exp(x);
    case GRUC_SOFTSIGN:
      return 1.0 / ((1.0 + std::fabs(x)) * (1.0 + std::fabs(x)));
    case GRUC_SOFTPLUS:
      return 1.0 / (1.0 + std::exp(-x));
  }
  return 1.0;
}

namespace {

using Vector = std::vector<double>;

// One step of one row: sums are what the activations read, before clip.
struct Step {
  Vector h;  // h'
  Vector r_sum, z_sum, n_sum;
  Vector r, z, n;
  Vector reset_h;  // r h'
  Vector q;        // U_n h' + c_n, or U_n (r h') + c_n where reset acts before
  Vector next;     // h
};

// One layer in one direction.
class Layer {
 public:
  Layer(const Spec& spec, const gruc_layer_params& p, int64_t input_size, int64_t direction)
      : spec_(spec),
        p_(p),
        inputs_(input_size),
        hidden_(spec.hidden_size),
        gate_(spec.gate_activation[direction]),
        candidate_(spec.activation[direction]) {}

  Step step(const double* x, const Vector& h) const {
    Step s;
    s.h = h;
    for (Vector* v : {&s.r_sum, &s.z_sum, &s.n_sum, &s.r, &s.z, &s.n, &s.reset_h, &s.q, &s.next}) v->resize(h.size());
    for (int64_t j = 0; j < hidden_; ++j) {
      s.r_sum[j] = input(kR, j, x) + recurrent(kR, j, h);
      s.z_sum[j] = input(kZ, j, x) + recurrent(kZ, j, h);
      s.r[j] = activate(gate_, clipped(s.r_sum[j]));
      s.z[j] = activate(gate_, clipped(s.z_sum[j]));
      s.reset_h[j] = s.r[j] * h[j];
    }
    for (int64_t j = 0; j < hidden_; ++j) {
      s.q[j] = recurrent(kN, j, after() ? h : s.reset_h);
      s.n_sum[j] = input(kN, j, x) + (after() ? s.r[j] * s.q[j] : s.q[j]);
      s.n[j] = activate(candidate_, clipped(s.n_sum[j]));
      s.next[j] = keep() ? s.z[j] * h[j] + (1.0 - s.z[j]) * s.n[j] : (1.0 - s.z[j]) * h[j] + s.z[j] * s.n[j];
    }
    return s;
  }

  // From dh, the gradient of the step's h, the gradient of h'. Adds to those of x and of the parameters.
  //   keep:   dn = dh (1 - z),  dz = dh (h' - n),  dh' = dh z
  //   take:   dn = dh z,        dz = dh (n - h'),  dh' = dh (1 - z)
  // and through the activations, with x_sum for what they read: dx_sum = dx f'(x_sum), 0 where clip cut it off.
  //   after:  n_sum = W_n x + b_n + r q, q = U_n h' + c_n:        dr = dn_sum q,  dq = dn_sum r,  dh' += U_n^T dq
  //   before: n_sum = W_n x + b_n + q, q = U_n s + c_n, s = r h':  dq = dn_sum,  ds = U_n^T dq,  dr = ds h',  dh' += ds
  //   r
  // then dh' += U_r^T dr_sum + U_z^T dz_sum, and of W, U, b, c and x as of any matrix product.
  Vector back(const Step& s, const double* x, const Vector& dh, double* dx, LayerGradients& grads) const {
    Vector dr_sum(dh.size()), dz_sum(dh.size()), dn_sum(dh.size()), dq(dh.size()), dh_before(dh.size());
    for (int64_t j = 0; j < hidden_; ++j) {
      const double dn = keep() ? dh[j] * (1.0 - s.z[j]) : dh[j] * s.z[j];
      const double dz = keep() ? dh[j] * (s.h[j] - s.n[j]) : dh[j] * (s.n[j] - s.h[j]);
      dh_before[j] = keep() ? dh[j] * s.z[j] : dh[j] * (1.0 - s.z[j]);
      dz_sum[j] = dz * clipped_slope(gate_, s.z_sum[j]);
      dn_sum[j] = dn * clipped_slope(candidate_, s.n_sum[j]);
      dq[j] = after() ? dn_sum[j] * s.r[j] : dn_sum[j];
    }
    const Vector through_n = transposed_recurrent(kN, dq);  // of h' where reset acts after, of r h' where before
    for (int64_t j = 0; j < hidden_; ++j) {
      const double dr = after() ? dn_sum[j] * s.q[j] : through_n[j] * s.h[j];
      dh_before[j] += after() ? through_n[j] : through_n[j] * s.r[j];
      dr_sum[j] = dr * clipped_slope(gate_, s.r_sum[j]);
    }
    const Vector through_r = transposed_recurrent(kR, dr_sum), through_z = transposed_recurrent(kZ, dz_sum);
    for (int64_t j = 0; j < hidden_; ++j) dh_before[j] += through_r[j] + through_z[j];

    add_input(kR, dr_sum, x, dx, grads);
    add_input(kZ, dz_sum, x, dx, grads);
    add_input(kN, dn_sum, x, dx, grads);
    add_recurrent(kR, dr_sum, s.h, grads);
    add_recurrent(kZ, dz_sum, s.h, grads);
    add_recurrent(kN, dq, after() ? s.h : s.reset_h, grads);
    return dh_before;
  }

  LayerGradients zeros() const {
    const auto size = [](int64_t rows, int64_t columns) { return Vector(static_cast<size_t>(rows * columns), 0.0); };
    const int64_t rows = 3 * hidden_;
    return {size(rows, inputs_), size(rows, hidden_), size(rows, 1), size(rows, 1)};
  }

 private:
  enum Gate { kR, kZ, kN };

  bool after() const { return spec_.reset == GRUC_RESET_AFTER; }
  bool keep() const { return spec_.update == GRUC_UPDATE_KEEP; }
  double clipped(double x) const {
    const double clip = spec_.clip;
    return x < -clip ? -clip : (x > clip ? clip : x);
  }
  double clipped_slope(const gruc_activation& f, double x) const {
    return std::fabs(x) <= spec_.clip ? slope(f, x) : 0.0;
  }

  double input(Gate gate, int64_t j, const double* x) const {
    const int64_t row = gate * hidden_ + j;
    double sum = p_.bias_ih == nullptr ? 0.0 : p_.bias_ih[row];
    for (int64_t i = 0; i < inputs_; ++i) sum += static_cast<double>(p_.weight_ih[row * inputs_ + i]) * x[i];
    return sum;
  }
  double recurrent(Gate gate, int64_t j, const Vector& h) const {
    const int64_t row = gate * hidden_ + j;
    double sum = p_.bias_hh == nullptr ? 0.0 : p_.bias_hh[row];
    for (int64_t k = 0; k < hidden_; ++k) sum += static_cast<double>(p_.weight_hh[row * hidden_ + k]) * h[k];
    return sum;
  }
  // U_gate^T d
  Vector transposed_recurrent(Gate gate, const Vector& d) const {
    Vector out(d.size(), 0.0);
    for (int64_t j = 0; j < hidden_; ++j)
      for (int64_t k = 0; k < hidden_; ++k)
        out[k] += static_cast<double>(p_.weight_hh[(gate * hidden_ + j) * hidden_ + k]) * d[j];
    return out;
  }
  // Of W_gate x + b_gate, whose gradient is d.
  void add_input(Gate gate, const Vector& d, const double* x, double* dx, LayerGradients& grads) const {
    for (int64_t j = 0; j < hidden_; ++j) {
      const int64_t row = gate * hidden_ + j;
      for (int64_t i = 0; i < inputs_; ++i) {
        dx[i] += static_cast<double>(p_.weight_ih[row * inputs_ + i]) * d[j];
        grads.weight_ih[row * inputs_ + i] += d[j] * x[i];
      }
      grads.bias_ih[row] += d[j];
    }
  }
  // Of U_gate h + c_gate, but for h.
  void add_recurrent(Gate gate, const Vector& d, const Vector& h, LayerGradients& grads) const {
    for (int64_t j = 0; j < hidden_; ++j) {
      const int64_t row = gate * hidden_ + j;
      for (int64_t k = 0; k < hidden_; ++k) grads.weight_hh[row * hidden_ + k] += d[j] * h[k];
      grads.bias_hh[row] += d[j];
    }
  }

  const Spec& spec_;
  const gruc_layer_params& p_;
  int64_t inputs_, hidden_;
  gruc_activation gate_, candidate_;
};

// Whole sequences: which row and time a step of a layer and direction has.
struct Sequence {
  const Spec& spec;
  const gruc_layer_params* params;
  int64_t steps, batch;
  const int64_t* lengths;

  int64_t width() const { return directions(spec) * spec.hidden_size; }
  size_t outputs() const { return static_cast<size_t>(steps * batch * width()); }
  size_t states() const { return static_cast<size_t>(layer_count(spec) * batch * spec.hidden_size); }
  int64_t length(int64_t b) const { return lengths == nullptr ? steps : lengths[b]; }
  int64_t frame(int64_t b, int64_t step, int64_t d) const {
    const bool reverse = d == 1 || spec.direction == GRUC_REVERSE;
    return (reverse ? length(b) - 1 - step : step) * batch + b;
  }
  int64_t index(int64_t l, int64_t d) const { return l * directions(spec) + d; }
  int64_t state(int64_t l, int64_t d, int64_t b) const { return (index(l, d) * batch + b) * spec.hidden_size; }
  Layer layer(int64_t l, int64_t d) const { return Layer(spec, params[index(l, d)], layer_input_size(spec, l), d); }

  // The steps of a row from the layer's input and the row's first state.
  std::vector<Step> run(int64_t l, int64_t d, int64_t b, const Vector& in, const double* h0) const {
    std::vector<Step> trace;
    Vector h(static_cast<size_t>(spec.hidden_size), 0.0);
    if (h0 != nullptr) std::copy_n(h0 + state(l, d, b), spec.hidden_size, h.begin());
    for (int64_t s = 0; s < length(b); ++s) {
      trace.push_back(layer(l, d).step(in.data() + frame(b, s, d) * layer_input_size(spec, l), h));
      h = trace.back().next;
    }
    return trace;
  }
  // The layer's outputs, after dropout; h_n may be nullptr.
  Vector outputs_of(int64_t l, const Vector& in, const double* h0, double* h_n, const double* factors) const {
    Vector out(outputs(), 0.0);
    for (int64_t d = 0; d < directions(spec); ++d)
      for (int64_t b = 0; b < batch; ++b) {
        const std::vector<Step> trace = run(l, d, b, in, h0);
        for (int64_t s = 0; s < length(b); ++s)
          std::copy_n(trace[s].next.begin(), spec.hidden_size,
                      out.begin() + frame(b, s, d) * width() + d * spec.hidden_size);
        for (int64_t at = state(l, d, b), j = 0; h_n != nullptr && j < spec.hidden_size; ++j)
          h_n[at + j] = !trace.empty() ? trace.back().next[j] : (h0 == nullptr ? 0.0 : h0[at + j]);
      }
    drop(l, factors, out);
    return out;
  }
  void drop(int64_t l, const double* factors, Vector& values) const {
    if (factors == nullptr || l == spec.num_layers - 1) return;
    for (size_t i = 0; i < values.size(); ++i) values[i] *= factors[static_cast<size_t>(l) * outputs() + i];
  }
};

}  // namespace

void forward(const Spec& spec, const gruc_layer_params* params, int64_t steps, int64_t batch, const double* x,
             const int64_t* lengths, const double* h0, double* y, double* h_n, const double* factors) {
  const Sequence sequence{spec, params, steps, batch, lengths};
  Vector in(x, x + steps * batch * spec.input_size);
  for (int64_t l = 0; l < spec.num_layers; ++l) in = sequence.outputs_of(l, in, h0, h_n, factors);
  std::copy(in.begin(), in.end(), y);
}

Gradients backward(const Spec& spec, const gruc_layer_params* params, int64_t steps, int64_t batch, const double* x,
                   const int64_t* lengths, const double* h0, const double* dy, const double* dh_n,
                   const double* factors) {
  const Sequence sequence{spec, params, steps, batch, lengths};
  const int64_t hidden = spec.hidden_size, width = sequence.width();
  std::vector<Vector> in = {Vector(x, x + steps * batch * spec.input_size)};  // of every layer
  for (int64_t l = 0; l + 1 < spec.num_layers; ++l)
    in.push_back(sequence.outputs_of(l, in.back(), h0, nullptr, factors));

  Gradients grads;
  grads.h0.assign(sequence.states(), 0.0);
  grads.params.resize(static_cast<size_t>(layer_count(spec)));
  Vector dout(sequence.outputs(), 0.0);
  if (dy != nullptr) dout.assign(dy, dy + sequence.outputs());
  for (int64_t l = spec.num_layers - 1; l >= 0; --l) {
    Vector din(in[l].size(), 0.0);
    for (int64_t d = 0; d < directions(spec); ++d) {
      const Layer layer = sequence.layer(l, d);
      LayerGradients& of_layer = grads.params[sequence.index(l, d)];
      of_layer = layer.zeros();
      for (int64_t b = 0; b < batch; ++b) {
        const std::vector<Step> trace = sequence.run(l, d, b, in[l], h0);
        const int64_t state = sequence.state(l, d, b);
        Vector dh(static_cast<size_t>(hidden), 0.0);
        if (dh_n != nullptr) std::copy_n(dh_n + state, hidden, dh.begin());
        for (int64_t s = sequence.length(b) - 1; s >= 0; --s) {
          const int64_t frame = sequence.frame(b, s, d), at = frame * layer_input_size(spec, l);
          for (int64_t j = 0; j < hidden; ++j) dh[j] += dout[frame * width + d * hidden + j];
          dh = layer.back(trace[s], in[l].data() + at, dh, din.data() + at, of_layer);
        }
        std::copy(dh.begin(), dh.end(), grads.h0.begin() + state);
      }
    }
    if (l > 0) sequence.drop(l - 1, factors, din);
    dout = std::move(din);
  }
  grads.x = std::move(dout);
  return grads;
}

}  // namespace gruc::reference
