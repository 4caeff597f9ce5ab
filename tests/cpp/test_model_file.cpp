// Model files through the C ABI: what is read comes back as it was written, from memory and from a path.
// Must not include the core's internals.
#include <cstring>
#include <filesystem>
#include <fstream>

#include "model_case.h"

namespace gruc::test {
namespace {

// In a file, gone at the end.
class File {
 public:
  explicit File(const FileBytes& bytes) {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = ::testing::TempDir() + "gru_core_" +
                      ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".safetensors";
};

std::vector<gruc_spec> every_variant() {
  std::vector<gruc_spec> specs;
  const auto add = [&](const auto& change) {
    gruc_spec spec = make_spec(2, 3, 2);
    change(spec);
    specs.push_back(spec);
  };
  for (int32_t direction = 0; direction < 3; ++direction)
    for (int32_t bias = 0; bias < 4; ++bias)
      add([&](gruc_spec& s) { s.direction = direction, s.bias = bias, s.reset = bias % 2, s.update = bias / 2; });
  for (int32_t kind = 0; kind <= GRUC_SOFTPLUS; ++kind) {
    const bool two = kind == GRUC_AFFINE || kind == GRUC_SCALED_TANH || kind == GRUC_HARD_SIGMOID;
    const bool one = kind == GRUC_LEAKY_RELU || kind == GRUC_THRESHOLDED_RELU || kind == GRUC_ELU;
    const gruc_activation f{kind, two || one ? 0.25f : 0.0f, two ? 0.75f : 0.0f};
    add([&](gruc_spec& s) { s.activation[0] = s.activation[1] = f; });
    add([&](gruc_spec& s) { s.gate_activation[0] = s.gate_activation[1] = f; });
    add([&](gruc_spec& s) { s.direction = GRUC_BIDIRECTIONAL, s.activation[1] = f, s.gate_activation[1] = f; });
  }
  for (int32_t norm = 1; norm <= GRUC_NORM_BATCH_MIXED; ++norm)
    for (const int64_t steps : {0, 1, 3}) {
      if (steps > (norm < GRUC_NORM_BATCH_INPUT ? 0 : norm == GRUC_NORM_BATCH_INPUT ? 1 : 3)) continue;
      add([&](gruc_spec& s) {
        s.norm = norm, s.norm_steps = steps, s.norm_epsilon = 0.125f;
        if (norm == GRUC_NORM_LAYER_SUM) s.reset = GRUC_RESET_CANDIDATE;
      });
    }
  add([](gruc_spec& s) { s.clip = 3.5f, s.zoneout = 0.5f; });
  add([](gruc_spec& s) { s.attention = 1, s.num_layers = 1; });
  return specs;
}

// All arrays of a layer, NULL where the struct has NULL.
std::vector<const float*> arrays_of(const gruc_layer_params& p) {
  return {p.weight_ih,  p.weight_hh,  p.bias_ih, p.bias_hh, p.gain_ih, p.gain_hh,
          p.gain_state, p.bias_state, p.mean_ih, p.var_ih,  p.mean_hh, p.var_hh};
}

TEST(ModelFile, EveryVariantComesBack) {
  for (const gruc_spec& spec : every_variant()) {
    ASSERT_EQ(gruc_spec_validate(&spec), GRUC_OK) << gruc_last_error();
    const FileModel file = counted_model(spec);
    const Model model(file.bytes());
    ASSERT_EQ(model.status, GRUC_OK) << gruc_last_error() << "\n" << file.about;
    EXPECT_EQ(std::memcmp(gruc_model_spec(model.model), &spec, sizeof spec), 0) << file.about;
    size_t count = 0;
    const gruc_layer_params* params = gruc_model_params(model.model, &count);
    ASSERT_EQ(count, static_cast<size_t>(spec.num_layers * directions_of(spec)));
    // The writer's numbers go on from tensor to tensor, in the order of the struct.
    size_t tensor = 0;
    for (size_t i = 0; i < count; ++i)
      for (const float* array : arrays_of(params[i])) {
        if (array == nullptr) continue;
        ASSERT_LT(tensor, file.tensors.size()) << file.about;
        const FileTensor& t = file.tensors[tensor++];
        EXPECT_EQ(std::memcmp(array, t.data.data(), t.data.size()), 0) << t.name << " of " << file.about;
      }
    EXPECT_EQ(tensor, file.tensors.size()) << file.about;
    gruc_weights* weights = nullptr;
    EXPECT_EQ(gruc_weights_create(&spec, params, count, &weights), GRUC_OK) << gruc_last_error();
    gruc_weights_destroy(weights);
    int64_t batch = -1;
    EXPECT_EQ(gruc_model_h0(model.model, &batch), nullptr);
    EXPECT_EQ(batch, 0);
    EXPECT_EQ(gruc_model_lengths(model.model, &batch), nullptr);
    EXPECT_EQ(batch, 0);
  }
}

TEST(ModelFile, ANetworkAnswersAsItsParametersDo) {
  Random random(1);
  const gruc_spec spec = make_spec(5, 7, 2, GRUC_BIDIRECTIONAL);
  const Params params(spec, random);
  FileModel file = counted_model(spec);
  size_t tensor = 0;
  for (const gruc_layer_params& layer : params.layers)
    for (const float* array : arrays_of(layer))
      if (array != nullptr) {
        FileBytes& data = file.tensors[tensor++].data;
        std::memcpy(data.data(), array, data.size());
      }
  gruc_weights* weights = nullptr;
  {
    const Model model(file.bytes());
    ASSERT_EQ(model.status, GRUC_OK) << gruc_last_error();
    size_t count = 0;
    const gruc_layer_params* loaded = gruc_model_params(model.model, &count);
    ASSERT_EQ(gruc_weights_create(gruc_model_spec(model.model), loaded, count, &weights), GRUC_OK);
  }
  const Problem problem = make_problem(spec, 4, 3, random);
  const Result expected = run(Network(spec, params), problem);
  std::vector<float> y(expected.y.size());
  gruc_sequence s;
  ASSERT_EQ(gruc_sequence_init(weights, 4, 3, &s), GRUC_OK);
  s.x = problem.x.data();
  s.y = y.data();
  EXPECT_EQ(gruc_forward(weights, &s), GRUC_OK) << gruc_last_error();
  EXPECT_TRUE(same_bits(y, expected.y));
  gruc_weights_destroy(weights);
}

TEST(ModelFile, StatesAndLengthsOfItsOwn) {
  const gruc_spec spec = make_spec(2, 3, 2);
  FileModel file = counted_model(spec);
  std::vector<float> states(2 * 3);
  for (size_t i = 0; i < states.size(); ++i) states[i] = static_cast<float>(i) + 0.5f;
  file.tensors.push_back({"h0", {2, 3}, bytes_of(states)});
  file.tensors.push_back({"lengths", {3}, bytes_of(std::vector<int64_t>{4, 0, INT64_MAX}), "I64"});
  {
    const Model model(file.bytes());
    ASSERT_EQ(model.status, GRUC_OK) << gruc_last_error();
    int64_t batch = 0;
    const float* h0 = gruc_model_h0(model.model, &batch);
    EXPECT_EQ(batch, 1);
    EXPECT_TRUE(same_bits(std::vector<float>(h0, h0 + 6), states));
    const int64_t* lengths = gruc_model_lengths(model.model, &batch);
    ASSERT_EQ(batch, 3);
    EXPECT_EQ(std::vector<int64_t>(lengths, lengths + 3), (std::vector<int64_t>{4, 0, INT64_MAX}));
    EXPECT_EQ(gruc_model_h0(model.model, nullptr), h0) << "the count may be NULL";
    EXPECT_EQ(gruc_model_lengths(model.model, nullptr), lengths);
  }
  states.resize(2 * 4 * 3, 1.0f);
  file.tensor("h0") = {"h0", {2, 4, 3}, bytes_of(states)};
  const Model rows(file.bytes());
  ASSERT_EQ(rows.status, GRUC_OK) << gruc_last_error();
  int64_t batch = 0;
  const float* h0 = gruc_model_h0(rows.model, &batch);
  EXPECT_EQ(batch, 4);
  EXPECT_TRUE(same_bits(std::vector<float>(h0, h0 + 24), states));
}

// Fields that a file may leave out have the defaults of the Python package.
TEST(ModelFile, DefaultsOfTheSpec) {
  FileModel file = counted_model(kSpec);
  file.about = R"({"version": 1, "spec": {"input_size": 2, "hidden_size": 3}, "later": [1, {"x": null}]})";
  const Model model(file.bytes());
  ASSERT_EQ(model.status, GRUC_OK) << gruc_last_error();
  EXPECT_EQ(std::memcmp(gruc_model_spec(model.model), &kSpec, sizeof kSpec), 0);
  file.about = R"({"version": 1, "spec": {"input_size": 2, "hidden_size": 3, )"
               R"("activation": ["scaled_tanh", 2], "gate_activation": "hard_sigmoid"}})";
  const Model partly(file.bytes());
  ASSERT_EQ(partly.status, GRUC_OK) << gruc_last_error();
  const gruc_spec& spec = *gruc_model_spec(partly.model);
  EXPECT_EQ(spec.activation[0].alpha, 2.0f);
  EXPECT_EQ(spec.activation[0].beta, 1.0f);
  EXPECT_EQ(spec.gate_activation[0].alpha, 0.2f);
  EXPECT_EQ(spec.gate_activation[0].beta, 0.5f);
}

// Tensors may lie in any order, whatever order the head names them in; spaces may follow the head.
TEST(ModelFile, OrderAndSpaces) {
  FileModel file = counted_model(kSpec);
  const Model before(file.bytes());
  std::reverse(file.tensors.begin(), file.tensors.end());
  const Model after(join(file.head() + "   \n", file.data()));
  ASSERT_EQ(after.status, GRUC_OK) << gruc_last_error();
  const gruc_layer_params *a = gruc_model_params(before.model, nullptr), *b = gruc_model_params(after.model, nullptr);
  EXPECT_EQ(std::memcmp(a->weight_ih, b->weight_ih, 9 * 2 * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(a->bias_hh, b->bias_hh, 9 * sizeof(float)), 0);
}

// --- around the file -------------------------------------------------------------------------------------------------

TEST(ModelFile, FromAPath) {
  const FileBytes bytes = counted_model(kSpec).bytes();
  const File file(bytes);
  gruc_model* model = nullptr;
  ASSERT_EQ(gruc_model_load(file.path().c_str(), &model), GRUC_OK) << gruc_last_error();
  const Model memory(bytes);
  const gruc_layer_params *a = gruc_model_params(model, nullptr), *b = gruc_model_params(memory.model, nullptr);
  EXPECT_EQ(std::memcmp(a->weight_hh, b->weight_hh, 27 * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(gruc_model_spec(model), gruc_model_spec(memory.model), sizeof(gruc_spec)), 0);
  gruc_model_destroy(model);
}

// A path's refusals are those of memory, with the path for its name.
TEST(ModelFile, WrongFiles) {
  const FileBytes whole = counted_model(kSpec).bytes();
  std::vector<FileBytes> wrong;
  for (size_t size = 0; size < whole.size(); size += 7)
    wrong.emplace_back(whole.begin(), whole.begin() + std::ptrdiff_t(size));
  FileBytes more = whole;
  more.push_back(0);
  wrong.push_back(more);
  wrong.push_back(with_head("[9,2]", "[2,9]"));
  wrong.push_back(with_head("[0,72]", "[0,9223372036854775807]"));
  wrong.push_back(with_about("\"bias\": true", "\"bias\": 3"));
  for (const FileBytes& bytes : wrong) {
    const File file(bytes);
    const Model memory(bytes);
    ASSERT_EQ(memory.status, GRUC_INVALID_ARGUMENT);
    const std::string said = gruc_last_error();
    gruc_model* model = nullptr;
    ASSERT_TRUE(refused(gruc_model_load(file.path().c_str(), &model), file.path().c_str()));
    EXPECT_EQ(model, nullptr);
    EXPECT_EQ(replaced(gruc_last_error(), file.path(), "data"), said);
  }
}

TEST(ModelFile, WhatIsNoFile) {
  gruc_model* model = nullptr;
  const std::string missing = ::testing::TempDir() + "gru_core_no_such_file";
  EXPECT_TRUE(refused(gruc_model_load(missing.c_str(), &model), missing.c_str()));
  EXPECT_TRUE(refused(gruc_model_load(::testing::TempDir().c_str(), &model), ::testing::TempDir().c_str()));
  EXPECT_TRUE(refused(gruc_model_load("", &model), ""));
  const std::string odd = missing + "\n\x1b[31m\xff";
  EXPECT_TRUE(refused(gruc_model_load(odd.c_str(), &model), "gru_core_no_such_file??[31m?")) << "text, in any encoding";
  const std::string long_path(4000, 'x');
  EXPECT_TRUE(refused(gruc_model_load(long_path.c_str(), &model), "...xxx"));
  EXPECT_EQ(model, nullptr);
}

TEST(ModelFile, Nulls) {
  const FileBytes bytes = counted_model(kSpec).bytes();
  gruc_model* model = nullptr;
  EXPECT_TRUE(refused(gruc_model_load(nullptr, &model), "path"));
  EXPECT_TRUE(refused(gruc_model_load("x", nullptr), "model"));
  EXPECT_TRUE(refused(gruc_model_load_memory(nullptr, bytes.size(), &model), "data"));
  EXPECT_TRUE(refused(gruc_model_load_memory(nullptr, 0, &model), "data"));
  EXPECT_TRUE(refused(gruc_model_load_memory(bytes.data(), bytes.size(), nullptr), "model"));
  EXPECT_EQ(model, nullptr);
  size_t count = 7;
  int64_t batch = 7;
  EXPECT_EQ(gruc_model_spec(nullptr), nullptr);
  EXPECT_EQ(gruc_model_params(nullptr, &count), nullptr);
  EXPECT_EQ(count, 0u);
  EXPECT_EQ(gruc_model_params(nullptr, nullptr), nullptr);
  EXPECT_EQ(gruc_model_h0(nullptr, &batch), nullptr);
  EXPECT_EQ(batch, 0);
  batch = 7;
  EXPECT_EQ(gruc_model_lengths(nullptr, &batch), nullptr);
  EXPECT_EQ(batch, 0);
  gruc_model_destroy(nullptr);
}

// What was there before a refused call is not freed or changed, and the next one is right.
TEST(ModelFile, ARefusalIsForgotten) {
  const FileBytes good = counted_model(kSpec).bytes();
  const Model first(good);
  gruc_model* second = first.model;
  const FileBytes wrong(good.begin(), good.end() - 1);
  EXPECT_TRUE(refused(gruc_model_load_memory(wrong.data(), wrong.size(), &second), "cut off"));
  EXPECT_EQ(second, nullptr);
  EXPECT_EQ(gruc_model_params(first.model, nullptr)->weight_ih[1], 2.0f);
  EXPECT_TRUE(loads(good));
}

}  // namespace
}  // namespace gruc::test
