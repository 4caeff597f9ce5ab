// See exact.h.
#include "exact.h"

#include <algorithm>
#include <cmath>

#include "reference.h"

namespace gruc::test {
namespace {

size_t count(int64_t n) { return static_cast<size_t>(n); }

}  // namespace

Exact exact(const gruc_spec& spec, const Params& params, const Problem& p, const std::vector<double>& factors) {
  const std::vector<double> x(p.x.begin(), p.x.end()), h0(p.h0.begin(), p.h0.end());
  Exact e;
  e.y.resize(count(p.steps * p.batch * width_of(spec)));
  e.h_n.resize(count(states_of(spec, p.batch)));
  reference::forward(spec, params.layers.data(), p.steps, p.batch, x.data(),
                     p.lengths.empty() ? nullptr : p.lengths.data(), h0.empty() ? nullptr : h0.data(), e.y.data(),
                     e.h_n.data(), factors.empty() ? nullptr : factors.data());
  return e;
}

double distance(const std::vector<float>& got, const std::vector<double>& expected) {
  double worst = got.size() == expected.size() ? 0.0 : HUGE_VAL;
  for (size_t i = 0; i < got.size() && worst < HUGE_VAL; ++i) {
    const double d = std::fabs(got[i] - expected[i]) / std::max(1.0, std::fabs(expected[i]));
    worst = std::isnan(d) ? HUGE_VAL : std::max(worst, d);
  }
  return worst;
}
double distance(const Result& got, const Exact& expected) {
  return std::max(distance(got.y, expected.y), distance(got.h_n, expected.h_n));
}

void expect_exact_edges(const gruc_spec& spec, const Problem& p, const Result& r) {
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t length = p.lengths.empty() ? p.steps : p.lengths[count(b)];
    for (int64_t t = length; t < p.steps; ++t)
      for (int64_t j = 0; j < width_of(spec); ++j)
        ASSERT_EQ(bits_of_float(r.y[count((t * p.batch + b) * width_of(spec) + j)]), 0u)
            << "row " << b << " step " << t;
    if (length > 0) continue;
    for (int64_t layer = 0; layer < spec.num_layers * directions_of(spec); ++layer)
      for (int64_t j = 0; j < spec.hidden_size; ++j) {
        const size_t at = count((layer * p.batch + b) * spec.hidden_size + j);
        ASSERT_EQ(r.h_n[at], p.h0.empty() ? 0.0f : p.h0[at]) << "row " << b;
      }
  }
}

}  // namespace gruc::test
