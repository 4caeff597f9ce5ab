// A stranger's C++ program with a network of fixed sizes, its parameters and inputs numbers that any language can make;
// prints what ../c/main.c prints. Must include nothing of this project but the public header.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <gru_core/gru_core_fixed.hpp>

namespace {

constexpr int kSteps = 8, kInputs = 3, kUnits = 5;

template <int kCount>
struct Numbers {
  float at[kCount];
  constexpr Numbers() : at() {
    for (int i = 0; i < kCount; ++i) at[i] = static_cast<float>(i * 7 % 11 - 5) / 8;
  }
};
constexpr Numbers<3 * kUnits * kInputs> kInputWeights;
constexpr Numbers<3 * kUnits * kUnits> kHiddenWeights;
constexpr Numbers<3 * kUnits> kBias;
constexpr Numbers<kSteps * kInputs> kInput;
constexpr gru_core::fixed::Weights<kInputs, kUnits> kWeights(kInputWeights.at, kHiddenWeights.at, kBias.at, kBias.at);

}  // namespace

int main() {
  gru_core::fixed::State<kUnits> state;
  for (int t = 0; t < kSteps; ++t) {
    float y[kUnits];
    gru_core::fixed::step(kWeights, state, kInput.at + t * kInputs, y);
    for (int j = 0; j < kUnits; ++j) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, y + j, sizeof bits);
      std::printf("%08x%c", static_cast<unsigned>(bits), j + 1 == kUnits ? '\n' : ' ');
    }
  }
  return 0;
}
