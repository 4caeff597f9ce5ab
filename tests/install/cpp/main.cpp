// A stranger's C++ program: what ../c/main.c does, by gru_core.hpp, and the version of the library that runs.
// Must include nothing of this project but the public header.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <gru_core/gru_core.hpp>
#include <vector>

int main(int argc, char** argv) try {
  const auto model = gru_core::Model::load(argc == 2 ? argv[1] : "").value();
  const auto weights = gru_core::Weights::create(model).value();
  auto state = gru_core::State::create(weights).value();

  constexpr size_t kSteps = 8;
  std::vector<float> x(kSteps * state.x_size()), y(kSteps * state.y_size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 7 % 11) - 5) / 8;
  const gru_core::Span<const float> in(x);
  const gru_core::Span<float> out(y);
  state.step({in.data(), state.x_size()}, {out.data(), state.y_size()}).check();
  state
      .process(kSteps - 1, {in.data() + state.x_size(), in.size() - state.x_size()},
               {out.data() + state.y_size(), out.size() - state.y_size()})
      .check();

  for (size_t i = 0; i < y.size(); ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &y[i], sizeof bits);
    std::printf("%08x%c", static_cast<unsigned>(bits), (i + 1) % state.y_size() == 0 ? '\n' : ' ');
  }
  return 0;
} catch (const gru_core::Error& error) {
  std::fprintf(stderr, "%s: %s\n", gruc_status_name(error.code()), error.what());
  return 1;
}
