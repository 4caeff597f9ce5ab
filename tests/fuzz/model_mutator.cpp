// How libFuzzer changes model files so that they stay near to being ones: in the head alone with its length put right,
// number by number, value by value, in the data alone; or a new file of a drawn network. Only linked with libFuzzer.
#include <algorithm>
#include <string>

#include "../cpp/model_writer.h"
#include "network.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace gruc::fuzz {
namespace {

using test::FileBytes;

constexpr size_t kLengthBytes = 8;

struct File {
  std::string head;
  FileBytes data;
};

File split(const uint8_t* data, size_t size) {
  if (size < kLengthBytes) return {};
  uint64_t length = 0;
  std::memcpy(&length, data, sizeof length);
  const size_t head = std::min<uint64_t>(length, size - kLengthBytes);
  const uint8_t* middle = data + kLengthBytes + head;
  return {std::string(data + kLengthBytes, middle), FileBytes(middle, data + size)};
}

size_t write(const File& file, uint8_t* data, size_t max_size) {
  const FileBytes bytes = test::join(file.head, file.data);
  const size_t size = std::min(bytes.size(), max_size);
  std::copy_n(bytes.begin(), size, data);
  return size;
}

std::string mutated(const std::string& text) {
  std::string out = text;
  out.resize(text.size() + 64);
  out.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(out.data()), text.size(), out.size()));
  return out;
}

// A run of digits, in the head or in the spec within it, becomes another number.
void change_number(std::string& head, Bytes& in, Random& random) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const size_t from = head.empty() ? 0 : random.bits() % head.size();
  const auto first = std::find_if(head.begin() + static_cast<std::ptrdiff_t>(from), head.end(), is_digit);
  const auto last = std::find_if_not(first, head.end(), is_digit);
  if (first == head.end()) return;
  const int64_t before = last - first < 18 ? std::stoll(std::string(first, last)) : 0;
  const int64_t other = in.one_in(2) ? in.wild() : before + in.up_to(8) - 4;
  head.replace(first, last, std::to_string(other));
}

// What stands between two of JSON's marks goes, comes twice, or changes places.
void change_value(std::string& head, Bytes& in, Random& random) {
  const auto mark = [&] {
    const size_t at = head.find_first_of("{}[],:\"", head.empty() ? 0 : random.bits() % head.size());
    return at == std::string::npos ? head.size() : at;
  };
  size_t from = mark(), to = mark();
  if (from > to) std::swap(from, to);
  const std::string part = head.substr(from, to - from);
  if (in.one_in(2)) head.erase(from, to - from);
  if (in.one_in(2)) head.insert(std::min(mark(), head.size()), part);
}

// A file of a network that is drawn, right or wrong by a field; sometimes with states and lengths.
File drawn(Bytes& in) {
  gruc_spec spec = draw_spec(in);
  gruc_spec small = spec;  // shapes that can be written, whatever the spec says
  small.input_size = std::clamp<int64_t>(spec.input_size, 1, 3);
  small.hidden_size = std::clamp<int64_t>(spec.hidden_size, 1, 3);
  small.num_layers = std::clamp<int32_t>(spec.num_layers, 1, 3);
  small.norm_steps = std::clamp<int64_t>(spec.norm_steps, 0, 2);
  if (spec.input_size < 99) spec.input_size = small.input_size;
  if (spec.hidden_size < 99) spec.hidden_size = small.hidden_size;
  spec.norm_steps = spec.norm_steps < 99 ? small.norm_steps : spec.norm_steps;
  test::FileModel model = test::counted_model(small);
  model.about = test::about_of(spec);
  const int64_t batch = in.up_to(2), states = layer_count(small) * batch * small.hidden_size;
  if (in.one_in(3))
    model.tensors.push_back({"h0",
                             {layer_count(small), batch, small.hidden_size},
                             test::bytes_of(std::vector<float>(static_cast<size_t>(states), 0.5f))});
  if (in.one_in(3))
    model.tensors.push_back(
        {"lengths", {batch}, test::bytes_of(std::vector<int64_t>(static_cast<size_t>(batch), in.up_to(4))), "I64"});
  return {model.head(), model.data()};
}

}  // namespace
}  // namespace gruc::fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  using namespace gruc::fuzz;
  Random random(seed);
  uint8_t choices[64];
  for (uint8_t& choice : choices) choice = static_cast<uint8_t>(random.bits());
  Bytes in(choices, sizeof choices);
  File file = split(data, size);
  switch (in.up_to(9)) {
    case 0:
      return LLVMFuzzerMutate(data, size, max_size);
    case 1:
    case 2:
      file.head = mutated(file.head);
      break;
    case 3:
    case 4:
    case 5:
      change_number(file.head, in, random);
      break;
    case 6:
    case 7:
      change_value(file.head, in, random);
      break;
    case 8:
      file.data.resize(file.data.size() + 16);
      file.data.resize(LLVMFuzzerMutate(file.data.data(), file.data.size() - 16, file.data.size()));
      break;
    default:
      file = drawn(in);
  }
  return write(file, data, max_size);
}
