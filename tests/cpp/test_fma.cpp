// The fma of the portable ISA, emulated in double where the target has none, against libm's: the same bits for any
// operands. Half of the cases are built to be hard: ties, near ties, cancellation, results among the denormals.
// Must not include a simd header but portable.h.
#include <cmath>
#include <thread>

#include "gru_core/detail/simd/portable.h"
#include "support.h"

namespace gruc::test {
namespace {

using gru_core::simd::portable::fma1;

struct Operands {
  float a, b, c;
};

// What an emulation that forgets the second rounding would do.
float naive_fma(const Operands& o) {
  return static_cast<float>(static_cast<double>(o.a) * static_cast<double>(o.b) + static_cast<double>(o.c));
}

float random_float(Random& random) { return float_of_bits(static_cast<uint32_t>(random.bits())); }
float with_exponent(Random& random, int64_t exponent) {
  const float significand = float_of_bits(0x3f800000u | (static_cast<uint32_t>(random.bits()) & 0x807fffffu));
  return std::ldexp(significand, static_cast<int>(exponent));
}

Operands any_bits(Random& random) { return {random_float(random), random_float(random), random_float(random)}; }

// Exponents close together, so that the sum's digits overlap.
Operands overlapping(Random& random) {
  const int64_t e = random.integer(-40, 40);
  return {with_exponent(random, e), with_exponent(random, random.integer(-3, 3)),
          with_exponent(random, e + random.integer(-30, 30))};
}

// a * b next to half a unit in the last place of c, off by 2^-24 of itself at most: the rounding hangs on digits that
// a double no longer has beside c's.
Operands near_tie(Random& random) {
  const int64_t e = random.integer(-60, 60);
  const float c = with_exponent(random, e);
  const float a = with_exponent(random, random.integer(-20, 20));
  const float b = std::ldexp(1.0f / a, static_cast<int>(e - 24));
  return {a, random.integer(0, 1) != 0 ? b : std::nextafter(b, 0.0f), c};
}

// a * b = half of 2^last, c's last place: exactly; or by (1 + d)(1 - d) = 1 - d^2, which a double does not see beside
// c.
Operands tie_at(Random& random, float c, int64_t last) {
  const int split = static_cast<int>(random.integer(-20, 20) - 75);
  const float half = std::ldexp(1.0f, static_cast<int>(last) - 1 - split);
  const float d = random.integer(0, 3) == 0 ? 0.0f : std::ldexp(1.0f, -static_cast<int>(random.integer(1, 23)));
  const float sign = random.integer(0, 1) != 0 ? 1.0f : -1.0f;
  return {std::ldexp(sign, split) * (1.0f + d), half * (1.0f - d), c};
}
Operands tie(Random& random) {
  const int64_t e = random.integer(-60, 60);
  return tie_at(random, with_exponent(random, e), e - 23);
}

// c is -a * b rounded, or next to it: what is left are the last digits of the product.
Operands cancelling(Random& random) {
  const float a = with_exponent(random, random.integer(-60, 60)), b = with_exponent(random, random.integer(-60, 60));
  float c = -(a * b);
  for (int64_t i = random.integer(0, 2); i > 0; --i) c = std::nextafter(c, random.integer(0, 1) != 0 ? 1e38f : -1e38f);
  return {a, b, c};
}

// Products and sums around the smallest floats and below, half of them ties.
Operands denormal(Random& random) {
  const float c = float_of_bits(static_cast<uint32_t>(random.bits()) & 0x80ffffffu);
  if (random.integer(0, 1) != 0) return tie_at(random, c, -149);
  const int64_t e = random.integer(-120, -20);
  return {with_exponent(random, e), with_exponent(random, random.integer(-152, -124) - e),
          random.integer(0, 3) == 0 ? 0.0f : c};
}

// Sums around the largest float.
Operands overflowing(Random& random) {
  const int64_t e = random.integer(10, 100);
  return {with_exponent(random, e), with_exponent(random, 127 - e + random.integer(-2, 1)),
          with_exponent(random, random.integer(100, 127))};
}

Operands special(Random& random) {
  const float values[] = {0.0f, -0.0f, 1.0f, -1.0f, HUGE_VALF, -HUGE_VALF, NAN, 1e-45f, -1e-45f, 3.4028235e38f, 1e-38f};
  const auto pick = [&] {
    const int64_t i = random.integer(0, 13);
    return i < 11 ? values[i] : random_float(random);
  };
  return {pick(), pick(), pick()};
}

class PortableFma : public ::testing::TestWithParam<std::pair<const char*, Operands (*)(Random&)>> {};

TEST_P(PortableFma, EqualsLibm) {
#if defined(__FP_FAST_FMAF)
  GTEST_SKIP() << "this target has an fma; nothing is emulated";
#endif
  constexpr int64_t kCases = 6'000'000;  // per thread and kind of case
  int64_t naive_failures[2] = {0, 0};
  const auto walk = [&](int part) {
    Random random(static_cast<uint64_t>(100 + part));
    int64_t reported = 0;
    for (int64_t i = 0; i < kCases; ++i) {
      const Operands o = GetParam().second(random);
      const float expected = std::fma(o.a, o.b, o.c), got = fma1(o.a, o.b, o.c);
      naive_failures[part] += bits_of_float(naive_fma(o)) != bits_of_float(expected) && !std::isnan(expected);
      if (bits_of_float(got) == bits_of_float(expected) || (std::isnan(got) && std::isnan(expected))) continue;
      ADD_FAILURE() << std::hexfloat << "fma(" << o.a << ", " << o.b << ", " << o.c << ") = " << got << ", expected "
                    << expected;
      if (++reported == 5) return;
    }
  };
  std::thread other(walk, 1);
  walk(0);
  other.join();
  const int64_t naive = naive_failures[0] + naive_failures[1];
  RecordProperty("cases_that_defeat_a_naive_emulation", std::to_string(naive));
  // Proof that the cases are hard: rounding twice gets some of them wrong.
  const std::string name = GetParam().first;
  if (name == "NearTie" || name == "Tie" || name == "Denormal") {
    EXPECT_GT(naive, 100);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, PortableFma,
                         ::testing::Values(std::pair("AnyBits", &any_bits), std::pair("Overlapping", &overlapping),
                                           std::pair("NearTie", &near_tie), std::pair("Tie", &tie),
                                           std::pair("Cancelling", &cancelling), std::pair("Denormal", &denormal),
                                           std::pair("Overflowing", &overflowing), std::pair("Special", &special)),
                         [](const auto& i) { return std::string(i.param.first); });

}  // namespace
}  // namespace gruc::test
