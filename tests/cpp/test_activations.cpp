// Accuracy of the activations against libm in double, their limits, and the same bits on every ISA, over a dense walk
// through all float32: every 257th bit pattern, both signs, and all patterns around the places where formulas change.
// In an emulator (the build for ARM, never one for x86) each stride is an odd multiple, which still meets every
// exponent and all low bits, and there are fewer patterns around a place.
//
// All 2^32 inputs, some two minutes per activation on two cores:
//   build/dev/tests/cpp/gru_core_tests --gtest_also_run_disabled_tests --gtest_filter='*Exhaustive*'
// and only those of tanh with --gtest_filter='*Exhaustive*/tanh'.
#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <thread>

#include "cpu/dispatch.h"
#include "reference.h"
#include "support.h"

namespace gruc::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// What is promised of each: |got - exact| <= absolute + ulp * (the last place of the exact value).
struct Bound {
  const char* name;
  Activation f;
  double ulp;
  double absolute;
};
constexpr Bound kBounds[] = {
    {"sigmoid", {GRUC_SIGMOID, 0, 0}, 0, 6e-8},
    {"tanh", {GRUC_TANH, 0, 0}, 1.51, 0},
    {"relu", {GRUC_RELU, 0, 0}, 0, 0},
    {"affine", {GRUC_AFFINE, 1.75f, -0.3f}, 0.5, 0},
    {"leaky_relu", {GRUC_LEAKY_RELU, 0.01f, 0}, 0.5, 0},
    {"thresholded_relu", {GRUC_THRESHOLDED_RELU, 1.0f, 0}, 0, 0},
    {"scaled_tanh", {GRUC_SCALED_TANH, 1.7159f, 0.6666667f}, 3, 0},
    {"hard_sigmoid_onnx", {GRUC_HARD_SIGMOID, 0.2f, 0.5f}, 0.5, 0},
    {"hard_sigmoid_keras", {GRUC_HARD_SIGMOID, 1.0f / 6.0f, 0.5f}, 0.5, 0},
    {"elu", {GRUC_ELU, 1.0f, 0}, 1, 0},
    {"elu_alpha", {GRUC_ELU, 0.3f, 0}, 1.75, 0},
    {"softsign", {GRUC_SOFTSIGN, 0, 0}, 1.5, 0},
    // Below -87 it stays e^-87, the last power that is no denormal.
    {"softplus", {GRUC_SOFTPLUS, 0, 0}, 2.25, 1.7e-38},
};

double last_place(double exact) {
  int exponent = 0;
  std::frexp(exact, &exponent);
  return std::ldexp(1.0, std::max(exponent, -125) - 24);
}

std::vector<float> activated(const KernelTable& kernels, const Activation& f, const std::vector<float>& in) {
  std::vector<float> out(in.size());
  kernels.activate({f, in.data(), out.data(), static_cast<int64_t>(in.size())});
  return out;
}

struct Worst {
  double ulp = 0;       // past the bound's absolute part
  double absolute = 0;  // of exact values up to 1
  float ulp_at = 0, absolute_at = 0;
  int64_t wrong_nan = 0;

  void merge(const Worst& o) {
    if (o.ulp > ulp) ulp = o.ulp, ulp_at = o.ulp_at;
    if (o.absolute > absolute) absolute = o.absolute, absolute_at = o.absolute_at;
    wrong_nan += o.wrong_nan;
  }
};

Worst measure(const Bound& bound, const std::vector<float>& in, const std::vector<float>& out) {
  Worst worst;
  for (size_t i = 0; i < in.size(); ++i) {
    if (std::isinf(in[i])) continue;  // LimitsAtInfinity
    if (std::isnan(in[i]) || std::isnan(out[i])) {
      worst.wrong_nan += std::isnan(in[i]) != std::isnan(out[i]);
      continue;
    }
    const double exact = reference::activate(bound.f, in[i]);
    // From half a last place past the largest float on, infinity is the nearest float.
    if (std::isinf(out[i]) && std::fabs(exact) >= 0x1.ffffffp127 && std::signbit(exact) == std::signbit(out[i]))
      continue;
    const double error = std::fabs(out[i] - exact);
    const double ulp = std::max(0.0, error - bound.absolute) / last_place(exact);
    if (error > worst.absolute && std::fabs(exact) <= 1.0) worst.absolute = error, worst.absolute_at = in[i];
    if (ulp > worst.ulp) worst.ulp = ulp, worst.ulp_at = in[i];
  }
  return worst;
}

void expect_within(const Bound& bound, const Worst& worst) {
  EXPECT_LE(worst.ulp, bound.ulp) << bound.name << " at " << worst.ulp_at;
  EXPECT_EQ(worst.wrong_nan, 0) << bound.name;
  ::testing::Test::RecordProperty(std::string(bound.name) + "_ulp", std::to_string(worst.ulp));
  std::printf("  %-18s %.4f ULP at %.8g; %.3e absolute at %.8g\n", bound.name, worst.ulp, worst.ulp_at, worst.absolute,
              worst.absolute_at);
}

#if defined(GRUC_EMULATED)
constexpr uint32_t kSparser = 17;
#else
constexpr uint32_t kSparser = 1;
#endif
constexpr int kAround = 2000 / kSparser;

// Inputs of the dense walk, a part at a time: body(vector of a multiple of 16 floats).
template <class Body>
void dense_walk(uint32_t stride, Body body) {
  std::vector<float> part;
  const auto take = [&](uint32_t bits) {
    part.push_back(float_of_bits(bits));
    if (part.size() == 65536) {
      body(part);
      part.clear();
    }
  };
  for (uint64_t bits = 0; bits <= UINT32_MAX; bits += stride * kSparser) take(static_cast<uint32_t>(bits));
  const float places[] = {0.0f,  1e-38f, 7.8886e-31f, 0.25f, 0.5f,        0.75f,         1.0f, 1.5f,  2.0f,
                          2.5f,  3.0f,   4.0f,        5.0f,  6.0f,        7.0f,          9.0f, 11.0f, 13.0f,
                          14.0f, 15.0f,  30.0f,       87.0f, 16777216.0f, 3.4028235e38f, kInf};
  for (const float place : places)
    for (const uint32_t sign : {0u, 0x80000000u})
      for (int offset = -kAround; offset <= kAround; ++offset) {
        const int64_t magnitude = int64_t{bits_of_float(place)} + offset;
        if (magnitude >= 0) take(static_cast<uint32_t>(magnitude) | sign);
      }
  while (part.size() % 16 != 0) part.push_back(NAN);
  body(part);
}

class Activations : public IsaTest {};

TEST_P(Activations, WithinTheirBounds) {
  const KernelTable& kernels = select_kernels();
  for (const Bound& bound : kBounds) {
    const bool common = bound.f.kind == GRUC_SIGMOID || bound.f.kind == GRUC_TANH;
    Worst worst;
    dense_walk(common ? 257 : 1021,
               [&](const std::vector<float>& in) { worst.merge(measure(bound, in, activated(kernels, bound.f, in))); });
    expect_within(bound, worst);
  }
}

// Any alpha and beta: what the factors' own roundings add, at most. elu: 0.9 ULP of e^x - 1 may count twice in units of
// the product, which is rounded once more; scaled_tanh: as much again for beta x. Met so far: 1.78 and 3.02.
TEST_P(Activations, OtherAlphasAndBetas) {
  Random random(2);
  for (int i = 0; i < 40; ++i) {
    const auto alpha = static_cast<float>(random.uniform(0.05, 4.0));
    const auto beta = static_cast<float>(random.uniform(0.05, 4.0));
    for (const Bound& bound : {Bound{"elu", {GRUC_ELU, alpha, 0}, 2.3, 1e-37},
                               Bound{"scaled_tanh", {GRUC_SCALED_TANH, alpha, beta}, 5.5, 1e-37}}) {
      Worst worst;
      dense_walk(65537, [&](const std::vector<float>& in) {
        worst.merge(measure(bound, in, activated(select_kernels(), bound.f, in)));
      });
      EXPECT_LE(worst.ulp, bound.ulp) << bound.name << " alpha " << alpha << " beta " << beta << " at " << worst.ulp_at;
      EXPECT_EQ(worst.wrong_nan, 0) << bound.name;
    }
  }
}

TEST_P(Activations, EqualPortable) {
  for (const Bound& bound : kBounds)
    dense_walk(1021, [&](const std::vector<float>& in) {
      ASSERT_TRUE(same_bits(activated(select_kernels(), bound.f, in), activated(kernels_portable, bound.f, in)))
          << bound.name;
    });
}

float at(const Activation& f, float x) { return activated(select_kernels(), f, std::vector<float>(16, x))[0]; }

TEST_P(Activations, NanStaysNan) {
  for (const Bound& bound : kBounds)
    for (const uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0x7fffffffu, 0xff800001u})
      EXPECT_TRUE(std::isnan(at(bound.f, float_of_bits(bits)))) << bound.name;
}

TEST_P(Activations, LimitsAtInfinity) {
  struct Limit {
    Activation f;
    float low, high;
  };
  const Limit limits[] = {{{GRUC_SIGMOID, 0, 0}, 0.0f, 1.0f},
                          {{GRUC_TANH, 0, 0}, -1.0f, 1.0f},
                          {{GRUC_RELU, 0, 0}, 0.0f, kInf},
                          {{GRUC_AFFINE, 2.0f, 1.0f}, -kInf, kInf},
                          {{GRUC_AFFINE, -2.0f, 1.0f}, kInf, -kInf},
                          {{GRUC_LEAKY_RELU, 0.5f, 0}, -kInf, kInf},
                          {{GRUC_THRESHOLDED_RELU, 1.0f, 0}, 0.0f, kInf},
                          {{GRUC_SCALED_TANH, 3.0f, 0.5f}, -3.0f, 3.0f},
                          {{GRUC_HARD_SIGMOID, 0.2f, 0.5f}, 0.0f, 1.0f},
                          {{GRUC_ELU, 0.5f, 0}, -0.5f, kInf},
                          {{GRUC_SOFTSIGN, 0, 0}, -1.0f, 1.0f}};
  for (const Limit& l : limits) {
    EXPECT_EQ(at(l.f, -kInf), l.low) << "kind " << l.f.kind;
    EXPECT_EQ(at(l.f, kInf), l.high) << "kind " << l.f.kind;
  }
  EXPECT_NEAR(at({GRUC_SOFTPLUS, 0, 0}, -kInf), 0.0, 2e-38);  // it ends at e^-87, above the denormals
  EXPECT_EQ(at({GRUC_SOFTPLUS, 0, 0}, kInf), kInf);
}

TEST_P(Activations, OddAndZero) {
  for (const float zero : {0.0f, -0.0f}) {
    EXPECT_EQ(bits_of_float(at({GRUC_TANH, 0, 0}, zero)), bits_of_float(zero));
    EXPECT_EQ(at({GRUC_SIGMOID, 0, 0}, zero), 0.5f);
  }
  Random random(1);
  for (const float x : random.normals(1000, 3.0)) EXPECT_EQ(at({GRUC_TANH, 0, 0}, -x), -at({GRUC_TANH, 0, 0}, x));
}

// What a gate may rely on: sigmoid in [0, 1] and tanh in [-1, 1], everywhere.
TEST_P(Activations, StayInRange) {
  dense_walk(1021, [&](const std::vector<float>& in) {
    const auto s = activated(select_kernels(), {GRUC_SIGMOID, 0, 0}, in);
    const auto t = activated(select_kernels(), {GRUC_TANH, 0, 0}, in);
    for (size_t i = 0; i < in.size(); ++i) {
      if (std::isnan(in[i])) continue;
      ASSERT_TRUE(s[i] >= 0.0f && s[i] <= 1.0f) << in[i];
      ASSERT_TRUE(t[i] >= -1.0f && t[i] <= 1.0f) << in[i];
    }
  });
}
GRUC_FOR_EVERY_ISA(Activations);

// Every float32: within the bounds, and all ISAs equal. See the head of this file.
class Exhaustive : public ::testing::TestWithParam<Bound> {};

TEST_P(Exhaustive, DISABLED_EveryFloat) {
  std::vector<const KernelTable*> tables;
  for (int32_t i = 0; isa_at(i).kernels != nullptr; ++i)
    if (isa_at(i).supported) tables.push_back(isa_at(i).kernels);
  Worst worst;
  std::mutex mutex;
  const auto walk = [&](uint64_t begin, uint64_t end) {
    constexpr uint64_t kPart = 1 << 14;
    Worst own;
    std::vector<float> in(kPart);
    for (uint64_t bits = begin; bits < end; bits += kPart) {
      for (uint64_t i = 0; i < kPart; ++i) in[i] = float_of_bits(static_cast<uint32_t>(bits + i));
      const auto first = activated(*tables.front(), GetParam().f, in);
      own.merge(measure(GetParam(), in, first));
      for (const KernelTable* table : tables)
        if (auto same = same_bits(activated(*table, GetParam().f, in), first); !same) {
          ADD_FAILURE() << table->name << ": " << same.message();
          return;
        }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    worst.merge(own);
  };
  const uint64_t half = uint64_t{1} << 31;
  std::thread other(walk, half, 2 * half);
  walk(0, half);
  other.join();
  expect_within(GetParam(), worst);
}
INSTANTIATE_TEST_SUITE_P(Activations, Exhaustive, ::testing::ValuesIn(kBounds),
                         [](const auto& i) { return std::string(i.param.name); });

}  // namespace
}  // namespace gruc::test
