// A whole sequence by the equations in double (reference.cpp), and how far a result is from it; for every backend.
// Must not include kernels or packing.
#pragma once
#include <vector>

#include "support.h"

namespace gruc::test {

struct Exact {
  std::vector<double> y, h_n;
};
// `factors` as reference.h has them; empty: ones.
Exact exact(const gruc_spec& spec, const Params& params, const Problem& problem,
            const std::vector<double>& factors = {});
// The largest difference, of numbers above 1 relative to them; infinity where one is NaN.
double distance(const std::vector<float>& got, const std::vector<double>& expected);
double distance(const Result& got, const Exact& expected);
// What padding and rows of no steps promise exactly.
void expect_exact_edges(const gruc_spec& spec, const Problem& problem, const Result& result);

}  // namespace gruc::test
