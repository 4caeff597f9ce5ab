// The equations as the papers write them, and their gradients, in double: the oracle of the tests. Not part of the
// shipped library. Must not include kernels, packing or threads.
#pragma once
#include <cstdint>
#include <vector>

#include "spec.h"

namespace gruc::reference {

double activate(const gruc_activation& f, double x);
// df/dx, at kinks as gru_core.h says.
double slope(const gruc_activation& f, double x);

// Shapes as gruc_sequence has them by default: x [T, B, I], y [T, B, D*H], h0 and h_n [L*D, B, H].
// lengths and h0 may be nullptr; x, y, h0 and h_n in double. `factors` [L - 1, T, B, D*H], or nullptr for ones: what
// dropout multiplies the outputs of every layer but the last by.
void forward(const Spec& spec, const gruc_layer_params* params, int64_t steps, int64_t batch, const double* x,
             const int64_t* lengths, const double* h0, double* y, double* h_n, const double* factors = nullptr);

// Shapes as in gruc_layer_params, with biases also where the spec has none: what their gradients would be.
struct LayerGradients {
  std::vector<double> weight_ih, weight_hh, bias_ih, bias_hh;
};
struct Gradients {
  std::vector<double> x, h0;  // h0's also where there is none; x's is zero beyond a row's length
  std::vector<LayerGradients> params;
};

// Of sum(dy y) + sum(dh_n h_n) for what forward has y and h_n of the same arguments. dy and dh_n may be nullptr for
// zeros; dy is not read beyond a row's length.
Gradients backward(const Spec& spec, const gruc_layer_params* params, int64_t steps, int64_t batch, const double* x,
                   const int64_t* lengths, const double* h0, const double* dy, const double* dh_n,
                   const double* factors = nullptr);

}  // namespace gruc::reference
