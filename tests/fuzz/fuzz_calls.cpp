// The target `calls`: an input is a network and what is done with it through the C ABI; see calls.h.
// Must not include the core's internals.
#include "calls.h"

namespace gruc::fuzz {
namespace {

constexpr double kMostFloats = 40000;
constexpr double kNoMemory = 0x1p46;  // floats: beyond what any address space of today holds

double parameters_of(const gruc_spec& spec) {
  double count = 0;
  for (int64_t layer = 0; layer < spec.num_layers; ++layer)
    for (const int64_t size : array_sizes(spec, layer)) count += static_cast<double>(directions(spec) * size);
  return count;
}

// Parameters that nobody may read: refused for the spec, or for want of memory.
void require_no_weights(const gruc_spec& spec, gruc_status wanted) {
  const float one = 1.0f;
  gruc_layer_params layer{};
  if (wanted == GRUC_OUT_OF_MEMORY) {
    const auto sizes = array_sizes(spec, 0);
    for (int a = 0; a < kArrays; ++a) layer.*kFields[a] = sizes[static_cast<size_t>(a)] == 0 ? nullptr : &one;
  }
  const std::vector<gruc_layer_params> params(wanted == GRUC_OUT_OF_MEMORY ? static_cast<size_t>(layer_count(spec)) : 1,
                                              layer);
  gruc_weights* weights = nullptr;
  require(gruc_weights_create(&spec, params.data(), params.size(), &weights) == wanted && weights == nullptr,
          "no weights of such a spec");
}

void run(Bytes& in) {
  if (in.one_in(4))
    ::setenv("GRUC_THREADS", "all", 1);
  else
    ::unsetenv("GRUC_THREADS");
  const gruc_spec spec = draw_spec(in);
  const bool sound = is_sound(spec);
  require(gruc_spec_validate(&spec) == (sound ? GRUC_OK : GRUC_INVALID_ARGUMENT), "the header's rules of a spec");
  if (!sound) return require_no_weights(spec, GRUC_INVALID_ARGUMENT);
  const double floats = parameters_of(spec);
  if (floats >= kNoMemory && spec.norm_steps == 0) require_no_weights(spec, GRUC_OUT_OF_MEMORY);
  Network network(spec);
  if (floats > kMostFloats || !network.create(in)) return;
  for (int calls = 0; calls < 4 && !in.done(); ++calls) {
    switch (in.up_to(15)) {
      case 0:
        call_with_nulls(network);
        break;
      case 1:
        call_with_struct_sizes(in, network);
        break;
      case 2:
        ask_for_sizes(in, network);
        break;
      case 3:
      case 4:
      case 5:
      case 6:
        call_streams(in, network);
        break;
      case 7:
      case 8:
      case 9:
      case 10:
        call_sequences(in, network);
        break;
      default:
        call_training(in, network);
    }
  }
}

}  // namespace
}  // namespace gruc::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gruc::fuzz::Bytes in(data, size);
  gruc::fuzz::run(in);
  return 0;
}
