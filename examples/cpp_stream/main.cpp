// A WAV in, a WAV out through a small trained network, block by block as an audio host calls a plug-in.
//
//     cpp_stream amp.safetensors head.txt guitar.wav out.wav [frames in a block, 64]
//
// Amp is what a plug-in would take over; the blocks' size changes no bit of the sound. See train.py for the network.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <gru_core/gru_core.hpp>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "wav.h"

namespace {

constexpr uint32_t kRate = 44100;  // what the network was trained at: at another rate it is another amplifier

// A sample in, a sample out: in + bias + weight . h. Interleaved channels are the rows of one batch, [frames,
// channels], so stereo costs little more than mono.
class Amp {
 public:
  Amp(const gru_core::Model& model, const std::string& head_path, size_t channels, size_t longest_block)
      : weights_(gru_core::Weights::create(model).value()),
        state_(gru_core::State::create(weights_, static_cast<int64_t>(channels)).value()),
        channels_(channels),
        weight_(static_cast<size_t>(weights_.spec().hidden_size)),
        h_(longest_block * channels * weight_.size()) {
    if (weights_.spec().input_size != 1) throw std::runtime_error("the model: expected a network with one input");
    std::ifstream head(head_path);
    head >> bias_;
    for (float& weight : weight_) head >> weight;
    if (!head || !(head >> std::ws).eof()) {
      throw std::runtime_error(head_path + ": expected " + std::to_string(1 + weight_.size()) + " numbers");
    }
  }

  // [frames, channels], at most the longest block; `out` may be `in`. No allocation, lock or system call.
  gru_core::Status process(const float* in, float* out, size_t frames) noexcept {
    const size_t samples = frames * channels_, units = weight_.size();
    const auto status = state_.process(static_cast<int64_t>(frames), {in, samples}, {h_.data(), samples * units});
    for (size_t i = 0; i < samples; ++i) {
      float sum = bias_;
      for (size_t j = 0; j < units; ++j) sum += weight_[j] * h_[i * units + j];
      out[i] = in[i] + sum;
    }
    return status;
  }

  const char* isa() const { return weights_.isa(); }

 private:
  gru_core::Weights weights_;  // before the state, which uses them to its end
  gru_core::State state_;
  size_t channels_;
  float bias_ = 0;
  std::vector<float> weight_, h_;  // [H]; [frames, channels, H]
};

void run(const std::string& model, const std::string& head, const std::string& in, const std::string& out,
         size_t block) {
  using Clock = std::chrono::steady_clock;
  wav::Sound sound = wav::read(in);
  if (sound.rate != kRate) {
    throw std::runtime_error(in + ": " + std::to_string(sound.rate) + " frames a second, expected " +
                             std::to_string(kRate));
  }
  block = std::min(block, std::max<size_t>(sound.frames(), 1));
  Amp amp(gru_core::Model::load(model).value(), head, sound.channels, block);
  std::vector<double> taken;  // seconds of each block
  for (size_t frame = 0; frame < sound.frames(); frame += block) {
    float* samples = &sound.samples[frame * sound.channels];
    const auto begin = Clock::now();
    const auto status = amp.process(samples, samples, std::min(block, sound.frames() - frame));
    taken.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    status.check();
  }
  wav::write(out, sound);
  const double seconds = static_cast<double>(sound.frames()) / kRate;
  const double total = std::accumulate(taken.begin(), taken.end(), 0.0);
  std::printf("%.2f s of sound, %u channel%s, in %.2f ms on %s: %.0f times faster than real time\n", seconds,
              static_cast<unsigned>(sound.channels), sound.channels == 1 ? "" : "s", 1e3 * total, amp.isa(),
              total > 0 ? seconds / total : 0);
  if (taken.empty()) return;
  std::sort(taken.begin(), taken.end());
  std::printf("a block of %zu frames has %.1f us: half of them took %.1f us or less, the slowest %.1f us\n", block,
              1e6 * static_cast<double>(block) / kRate, 1e6 * taken[taken.size() / 2], 1e6 * taken.back());
}

}  // namespace

int main(int argc, char** argv) {
  char* end = nullptr;
  const long block = argc == 6 ? std::strtol(argv[5], &end, 10) : 64;
  if (argc < 5 || argc > 6 || block < 1 || (end != nullptr && *end != '\0')) {
    std::fprintf(stderr, "usage: cpp_stream MODEL.safetensors HEAD.txt IN.wav OUT.wav [FRAMES IN A BLOCK]\n");
    return EXIT_FAILURE;
  }
  try {
    run(argv[1], argv[2], argv[3], argv[4], static_cast<size_t>(block));
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cpp_stream: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
