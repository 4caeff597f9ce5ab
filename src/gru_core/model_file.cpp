// See model_file.h. The format is safetensors: 8 bytes of the head's length, little-endian, the head in JSON, then the
// tensors without gaps (https://huggingface.co/docs/safetensors). No number of a file is trusted before it is checked
// against what follows from the spec, and no memory is taken for bytes that have not been seen.
#include "model_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <system_error>

#include "json.h"
#include "model_spec.h"
#include "status.h"

namespace gruc {
namespace {

constexpr size_t kLengthBytes = 8;
// 1024 layers of two directions with 12 tensors each, at some 100 bytes a tensor, are 2.5 MB.
constexpr size_t kMaxHead = size_t{4} << 20;
constexpr std::string_view kMetadata = "__metadata__", kAbout = "gru_c", kInitialStates = "h0", kLengths = "lengths";

// A tensor as the head has it.
struct Tensor {
  std::string_view name;
  std::vector<int64_t> shape;
  int64_t begin;  // in bytes from the head's end
  int64_t end;
};

struct Head {
  Json json;
  Spec spec;
  std::vector<Tensor> tensors;  // by name
  int64_t data_size;
};

size_t head_length(const unsigned char* data, const std::string& where) {
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | data[i];
  if (length > kMaxHead) fail_argument(where + ": not a model file: a head of " + std::to_string(length) + " bytes");
  return static_cast<size_t>(length);
}

// Whether so many bytes are a tensor of that shape.
bool fits(const std::vector<int64_t>& shape, int64_t element, int64_t bytes) {
  int64_t count = element;
  for (const int64_t size : shape)
    if (__builtin_mul_overflow(count, size, &count)) return false;
  return count == bytes;
}

Tensor tensor_of(const std::string& name, const Json& json, const std::string& where) {
  const std::string tensor = where + ": tensor '" + printable(name) + "'";
  const Json *dtype = json.find("dtype"), *shape = json.find("shape"), *offsets = json.find("data_offsets");
  const bool whole = name == kLengths;
  if (dtype == nullptr || dtype->kind != Json::kString || dtype->text != (whole ? "I64" : "F32"))
    fail_argument(tensor + (whole ? ": expected dtype I64" : ": expected dtype F32"));
  Tensor t{name, {}, 0, 0};
  if (shape == nullptr || shape->kind != Json::kArray || shape->items.size() > 3)
    fail_argument(tensor + ": expected a shape of up to 3 sizes");
  for (const Json& item : shape->items) {
    int64_t size = 0;
    if (!item.as_int(size) || size < 0) fail_argument(tensor + ": a size that is none");
    t.shape.push_back(size);
  }
  if (offsets == nullptr || offsets->items.size() != 2 || !offsets->items[0].as_int(t.begin) ||
      !offsets->items[1].as_int(t.end) || t.begin < 0 || t.end < t.begin)
    fail_argument(tensor + ": expected data_offsets, two byte numbers in order");
  if (!fits(t.shape, whole ? 8 : 4, t.end - t.begin))
    fail_argument(tensor + ": its shape and its " + std::to_string(t.end - t.begin) + " bytes do not agree");
  return t;
}

// The tensors lie one after another and fill the data; returns its size.
int64_t check_layout(const std::vector<Tensor>& tensors, const std::string& where) {
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const Tensor& t : tensors) ranges.emplace_back(t.begin, t.end);
  std::sort(ranges.begin(), ranges.end());
  int64_t at = 0;
  for (const auto& range : ranges) {
    if (range.first != at) fail_argument(where + ": the tensors overlap or leave gaps at byte " + std::to_string(at));
    at = range.second;
  }
  return at;
}

Head parse_head(std::string_view text, const std::string& where) {
  Head head{};
  head.json = parse_json(text, where);
  const Json* metadata = head.json.find(kMetadata);
  const Json* about = metadata == nullptr ? nullptr : metadata->find(kAbout);
  if (about == nullptr || about->kind != Json::kString)
    fail_argument(where + ": not a model of gru_c: its metadata has no 'gru_c'");
  for (const auto& member : metadata->members)
    if (member.second.kind != Json::kString)
      fail_argument(where + ": metadata '" + printable(member.first) + "': expected a string");
  head.spec = parse_model_spec(about->text, where + ": metadata 'gru_c'");
  for (const auto& member : head.json.members)
    if (member.first != kMetadata) head.tensors.push_back(tensor_of(member.first, member.second, where));
  head.data_size = check_layout(head.tensors, where);
  std::sort(head.tensors.begin(), head.tensors.end(), [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
  return head;
}

// Takes tensors out of the data, each once, by the shapes that the spec asks for.
class Reader {
 public:
  Reader(const Head& head, const unsigned char* data, const std::string& where, gruc_model& model)
      : head_(head), data_(data), where_(where), model_(model) {
    model_.floats.resize(static_cast<size_t>(head.data_size) / sizeof(float));
  }

  void run() {
    const Spec& spec = head_.spec;
    for (int64_t layer = 0; layer < spec.num_layers; ++layer)
      for (int64_t d = 0; d < directions(spec); ++d)
        model_.params.push_back(layer_params(layer, "_l" + std::to_string(layer) + (d == 1 ? "_reverse" : "")));
    take_h0();
    take_lengths();
    if (taken_ == head_.tensors.size()) return;
    fail_argument(where_ + ": it has " + std::to_string(head_.tensors.size()) + " tensors, " + std::to_string(taken_) +
                  " of which this network knows");
  }

 private:
  const Tensor* find(std::string_view name) const {
    const auto at = std::lower_bound(head_.tensors.begin(), head_.tensors.end(), name,
                                     [](const Tensor& t, std::string_view n) { return t.name < n; });
    return at != head_.tensors.end() && at->name == name ? &*at : nullptr;
  }

  // Floats are little-endian in the file, as on every machine that this library is built for.
  const float* floats(const Tensor& t) {
    float* out = model_.floats.data() + used_;
    std::memcpy(out, data_ + t.begin, static_cast<size_t>(t.end - t.begin));
    used_ += static_cast<size_t>(t.end - t.begin) / sizeof(float);
    ++taken_;
    return out;
  }

  const float* array(bool wanted, const char* stem, const std::string& suffix, std::vector<int64_t> shape) {
    if (!wanted) return nullptr;
    const std::string name = stem + suffix;
    const Tensor* t = find(name);
    if (t == nullptr) fail_argument(where_ + ": no tensor '" + name + "'");
    if (t->shape != shape) fail_argument(where_ + ": tensor '" + name + "': not of the shape that the spec has");
    return floats(*t);
  }

  gruc_layer_params layer_params(int64_t layer, const std::string& suffix) {
    const Spec& spec = head_.spec;
    const int64_t hidden = spec.hidden_size, rows = 3 * hidden, steps = spec.norm_steps;
    const bool population = steps > 0, by_step = spec.norm == GRUC_NORM_BATCH_STEP;
    const bool hidden_too = population && spec.norm != GRUC_NORM_BATCH_INPUT;
    const bool state = spec.norm == GRUC_NORM_LAYER_STATE;
    gruc_layer_params p{};
    p.weight_ih = array(true, "weight_ih", suffix, {rows, layer_input_size(spec, layer)});
    p.weight_hh = array(true, "weight_hh", suffix, {rows, hidden});
    p.bias_ih = array((spec.bias & GRUC_BIAS_INPUT) != 0, "bias_ih", suffix, {rows});
    p.bias_hh = array((spec.bias & GRUC_BIAS_HIDDEN) != 0, "bias_hh", suffix, {rows});
    p.gain_ih = array(has_input_gain(spec), "gain_ih", suffix, {rows});
    p.gain_hh = array(has_hidden_gain(spec), "gain_hh", suffix, {rows});
    p.gain_state = array(state, "gain_state", suffix, {hidden});
    p.bias_state = array(state, "bias_state", suffix, {hidden});
    p.mean_ih = array(population, "mean_ih", suffix, {by_step ? steps : 1, rows});
    p.var_ih = array(population, "var_ih", suffix, {by_step ? steps : 1, rows});
    p.mean_hh = array(hidden_too, "mean_hh", suffix, {steps, rows});
    p.var_hh = array(hidden_too, "var_hh", suffix, {steps, rows});
    return p;
  }

  void take_h0() {
    const Tensor* t = find(kInitialStates);
    if (t == nullptr) return;
    const std::vector<int64_t>& shape = t->shape;
    if (shape.size() < 2 || shape.front() != layer_count(head_.spec) || shape.back() != head_.spec.hidden_size)
      fail_argument(where_ + ": tensor 'h0': not of the shape [L*D, H] or [L*D, batch, H]");
    model_.h0 = floats(*t);
    model_.h0_batch = shape.size() == 2 ? 1 : shape[1];
  }

  void take_lengths() {
    const Tensor* t = find(kLengths);
    if (t == nullptr) return;
    if (t->shape.size() != 1) fail_argument(where_ + ": tensor 'lengths': expected one dimension");
    model_.has_lengths = true;
    model_.lengths.reserve(1);  // none at all are no NULL
    model_.lengths.resize(static_cast<size_t>(t->shape[0]));
    if (!model_.lengths.empty())
      std::memcpy(model_.lengths.data(), data_ + t->begin, static_cast<size_t>(t->end - t->begin));
    for (const int64_t length : model_.lengths)
      if (length < 0) fail_argument(where_ + ": tensor 'lengths': a length below 0");
    ++taken_;
  }

  const Head& head_;
  const unsigned char* data_;
  const std::string& where_;
  gruc_model& model_;
  size_t used_ = 0;   // of the floats
  size_t taken_ = 0;  // of the tensors
};

gruc_model* make_model(const Head& head, const unsigned char* data, const std::string& where) {
  auto model = std::make_unique<gruc_model>();
  model->spec = head.spec;
  Reader(head, data, where, *model).run();
  return model.release();
}

struct Close {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};

class File {
 public:
  File(const char* path, const std::string& where) : where_(where), file_(std::fopen(path, "rb")) {
    if (file_ == nullptr) fail_to("open");
  }

  // Appends up to `count` bytes: fewer at the file's end. In pieces, so that a head that promises more than the file
  // has takes no memory for it.
  void read(std::vector<unsigned char>& out, size_t count) {
    constexpr size_t kPiece = size_t{1} << 20;
    while (count > 0) {
      const size_t piece = std::min(count, kPiece), before = out.size();
      out.resize(before + piece);
      const size_t got = std::fread(out.data() + before, 1, piece, file_.get());
      out.resize(before + got);
      if (got < piece && std::ferror(file_.get()) != 0) fail_to("read");
      if (got < piece) return;
      count -= piece;
    }
  }

 private:
  [[noreturn]] void fail_to(const char* what) const {
    fail_argument(where_ + ": cannot " + what + " it: " + printable(std::generic_category().message(errno)));
  }

  const std::string& where_;
  std::unique_ptr<std::FILE, Close> file_;
};

std::string_view text_of(const unsigned char* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

[[noreturn]] void fail_truncated(const std::string& where, size_t size) {
  fail_argument(where + ": not a model file, or cut off: it ends after " + std::to_string(size) + " bytes");
}

}  // namespace

gruc_model* parse_model(const unsigned char* data, size_t size, const std::string& where) {
  if (size < kLengthBytes) fail_truncated(where, size);
  const size_t length = head_length(data, where);
  if (length > size - kLengthBytes) fail_truncated(where, size);
  const Head head = parse_head(text_of(data + kLengthBytes, length), where);
  const size_t rest = size - kLengthBytes - length;
  if (static_cast<size_t>(head.data_size) > rest) fail_truncated(where, size);
  if (static_cast<size_t>(head.data_size) < rest) fail_argument(where + ": there is more than its head says");
  return make_model(head, data + kLengthBytes + length, where);
}

gruc_model* load_model(const char* path) {
  const std::string where = printable(path);
  File file(path, where);
  std::vector<unsigned char> data;
  file.read(data, kLengthBytes);
  if (data.size() < kLengthBytes) fail_truncated(where, data.size());
  const size_t length = head_length(data.data(), where), before = kLengthBytes + length;
  file.read(data, length);
  if (data.size() < before) fail_truncated(where, data.size());
  const Head head = parse_head(text_of(data.data() + kLengthBytes, length), where);
  // One byte more than it should have, to see the end.
  file.read(data, static_cast<size_t>(head.data_size) + 1);
  const size_t rest = data.size() - before;
  if (rest < static_cast<size_t>(head.data_size)) fail_truncated(where, data.size());
  if (rest > static_cast<size_t>(head.data_size)) fail_argument(where + ": there is more than its head says");
  return make_model(head, data.data() + before, where);
}

}  // namespace gruc
