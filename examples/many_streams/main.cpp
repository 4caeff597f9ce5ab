// Ten thousand independent streams over shared weights and a few threads: steps a second, and memory a stream.
//
//     many_streams [streams, 10000] [steps of each, 100]
//
// Every state lies in one allocation, at its own 64-byte boundary, and belongs to one thread; nothing is locked. For
// streams that tick one by one, as sensors, players or orders do. (Where all tick together, one state with batch =
// streams reads the weights once for many rows and is twice as fast.) Afterwards some streams are run again alone: the
// states must be the same bits.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <gru_core/gru_core.hpp>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kInputs = 8;
constexpr size_t kAlignment = 64;

struct Run {
  size_t streams, steps;
};

std::vector<float> noise(size_t size, float scale) {
  std::minstd_rand random(static_cast<unsigned>(size));
  std::vector<float> numbers(size);
  for (float& number : numbers) number = scale * (2 * std::generate_canonical<float, 24>(random) - 1);
  return numbers;
}

gru_core::Weights random_weights(size_t hidden) {
  const float scale = 1 / std::sqrt(static_cast<float>(hidden));
  const auto w = noise(3 * hidden * kInputs, scale), u = noise(3 * hidden * hidden, scale),
             b = noise(3 * hidden, scale);
  const gru_core::Spec spec(kInputs, static_cast<int64_t>(hidden));
  const gru_core::LayerParams layer{w, u, b, b};
  const gruc_layer_params params[] = {gru_core::layer_params(spec, 0, layer).value()};
  return gru_core::Weights::create(spec, params).value();
}

// What stream `stream` hears at step `step`: its own part of one long noise.
const float* heard(const std::vector<float>& signal, size_t stream, size_t step) {
  return &signal[(stream * 37 + step * kInputs) % (signal.size() - kInputs)];
}

class Fleet {
 public:
  Fleet(const gru_core::Weights& weights, size_t streams)
      : each_(rounded(gru_core::State::bytes(weights).value())),
        memory_(static_cast<std::byte*>(::operator new(each_ * streams, std::align_val_t(kAlignment)))) {
    states_.reserve(streams);
    for (size_t i = 0; i < streams; ++i) {
      states_.push_back(gru_core::State::create_in({memory_.get() + i * each_, each_}, weights).value());
    }
  }

  // Streams [first, last) at every step: what one thread does.
  void run(const std::vector<float>& signal, size_t first, size_t last, size_t steps) {
    std::vector<float> y(states_[first].y_size());
    for (size_t step = 0; step < steps; ++step) {
      for (size_t i = first; i < last; ++i) states_[i].step({heard(signal, i, step), kInputs}, y).check();
    }
  }

  const gru_core::State& operator[](size_t i) const { return states_[i]; }
  size_t bytes_each() const { return each_ + sizeof(gru_core::State); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t(kAlignment)); }
  };
  static size_t rounded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  size_t each_;
  std::unique_ptr<std::byte, Free> memory_;
  std::vector<gru_core::State> states_;
};

// Seconds for all steps of all streams, the threads' start and end with it.
double timed(Fleet& fleet, const std::vector<float>& signal, Run run, size_t threads) {
  std::vector<std::exception_ptr> failed(threads);
  std::vector<std::thread> workers;
  const auto begin = std::chrono::steady_clock::now();
  for (size_t k = 0; k < threads; ++k) {
    workers.emplace_back([&, k] {
      try {
        fleet.run(signal, run.streams * k / threads, run.streams * (k + 1) / threads, run.steps);
      } catch (...) {
        failed[k] = std::current_exception();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  for (const std::exception_ptr& one : failed) {
    if (one) std::rethrow_exception(one);
  }
  return taken.count();
}

bool same_alone(const Fleet& fleet, const gru_core::Weights& weights, const std::vector<float>& signal, Run run) {
  for (const size_t i : {size_t{0}, run.streams / 3, run.streams / 2, run.streams - 1}) {
    auto alone = gru_core::State::create(weights).value();
    std::vector<float> h(alone.h_size()), among(alone.h_size());
    for (size_t step = 0; step < run.steps; ++step) alone.step({heard(signal, i, step), kInputs}, h).check();
    fleet[i].get_h(among).check();
    if (std::memcmp(h.data(), among.data(), h.size() * sizeof(float)) != 0) return false;
  }
  return true;
}

bool table(Run run) {
  const auto signal = noise(1 << 14, 1);
  const size_t cores = std::max(1U, std::thread::hardware_concurrency());
  bool same = true;
  std::printf("%zu streams, %zu steps of each, %zu inputs\n", run.streams, run.steps, kInputs);
  std::puts("units  threads  bytes/stream  all streams  weights   million steps/s  ns/step  as alone");
  for (const size_t hidden : {size_t{16}, size_t{32}, size_t{64}}) {
    const auto weights = random_weights(hidden);
    for (size_t threads = 1; threads <= std::min<size_t>(cores, 4) && threads <= run.streams; threads *= 2) {
      Fleet fleet(weights, run.streams);
      const double seconds = timed(fleet, signal, run, threads);
      const double steps = static_cast<double>(run.streams * run.steps);
      const bool good = same_alone(fleet, weights, signal, run);
      std::printf("%5zu  %7zu  %12zu  %8.1f MB  %4zu KB  %16.2f  %7.0f  %s\n", hidden, threads, fleet.bytes_each(),
                  1e-6 * static_cast<double>(fleet.bytes_each() * run.streams), weights.bytes() / 1000,
                  1e-6 * steps / seconds, 1e9 * seconds / steps, good ? "the same bits" : "OTHER BITS");
      same = same && good;
    }
  }
  return same;
}

size_t positive(const char* text, const char* what) {
  char* end;
  const long value = std::strtol(text, &end, 10);
  if (*end != '\0' || value < 1 || value > 10'000'000) {
    throw std::runtime_error(std::string(what) + ": expected 1 to 10000000, got '" + text + "'");
  }
  return static_cast<size_t>(value);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Run run{10000, 100};
    if (argc > 1) run.streams = positive(argv[1], "streams");
    if (argc > 2) run.steps = positive(argv[2], "steps");
    return table(run) ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "many_streams: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
