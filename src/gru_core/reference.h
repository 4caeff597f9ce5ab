// The equations as the papers write them, in double: the oracle of the tests. Not part of the shipped library.
// Must not include kernels, packing or threads.
#pragma once
#include <cstdint>

#include "spec.h"

namespace gruc::reference {

double activate(const gruc_activation& f, double x);

// Shapes as gruc_sequence has them by default: x [T, B, I], y [T, B, D*H], h0 and h_n [L*D, B, H].
// lengths and h0 may be nullptr; x, y, h0 and h_n in double.
void forward(const Spec& spec, const gruc_layer_params* params, int64_t steps, int64_t batch, const double* x,
             const int64_t* lengths, const double* h0, double* y, double* h_n);

}  // namespace gruc::reference
