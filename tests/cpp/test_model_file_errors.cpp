// Model files that are wrong: every claim of a file is checked before anything trusts it, and the message names it.
// Must not include the core's internals.
#include "model_case.h"

namespace gruc::test {
namespace {

TEST(ModelFile, CutOffAtEveryByte) {
  const FileBytes whole = counted_model(kSpec).bytes();
  ASSERT_TRUE(loads(whole));
  for (size_t size = 0; size < whole.size(); ++size)
    ASSERT_TRUE(refuses({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}, "cut off")) << size;
  FileBytes more = whole;
  more.push_back(0);
  EXPECT_TRUE(refuses(more, "there is more than its head says"));
}

TEST(ModelFile, HeadsOfAnyClaimedLength) {
  const FileModel good = counted_model(kSpec);
  for (int byte = 0; byte < 8; ++byte)
    for (int bit = 0; bit < 8; ++bit) {
      FileBytes bytes = good.bytes();
      bytes[static_cast<size_t>(byte)] ^= static_cast<unsigned char>(1 << bit);
      ASSERT_TRUE(refuses(bytes, "data: ")) << byte << " " << bit;
    }
  const FileBytes huge(8, 0xff);
  EXPECT_TRUE(refuses(huge, "head of 18446744073709551615 bytes"));
  EXPECT_TRUE(refuses(FileBytes(8, 0), "JSON"));
}

// A claim of memory costs none: it is held against what is there.
TEST(ModelFile, HugeClaimsTakeNoMemory) {
  for (const char* shape : {"[9,1000000000000]", "[4611686018427387904,4]", "[9223372036854775807,9223372036854775807]",
                            "[9223372036854775807,9223372036854775807,0]"})
    EXPECT_TRUE(refuses(with_head("[9,2]", shape), "'weight_ih_l0'")) << shape;
  EXPECT_TRUE(refuses(
      with_head("[9,2],\"data_offsets\":[0,72]", "[9,1000000000000],\"data_offsets\":[0,36000000000000]"), "data"));
  EXPECT_TRUE(refuses(with_head("[0,72]", "[0,9223372036854775807]"), "'weight_ih_l0'"));
  for (const char* field : {"input_size", "hidden_size"}) {
    const std::string key = "\"" + std::string(field) + "\": ";
    const std::string size = std::string(field) == "input_size" ? "2" : "3";
    EXPECT_TRUE(refuses(with_about(key + size, key + "16777216"), "'weight_ih_l0'"));
    EXPECT_TRUE(refuses(with_about(key + size, key + "16777217"), field));
  }
  EXPECT_TRUE(refuses(with_about("\"num_layers\": 1", "\"num_layers\": 1024"), "'weight_ih_l1'"));
}

struct Wrong {
  const char *from, *to, *named;
};

TEST(ModelFile, WrongHeads) {
  constexpr Wrong kWrong[] = {
      {"{\"__metadata__\"", "[\"__metadata__\"", "JSON"},
      {"\"__metadata__\"", "\"metadata\"", "gru_c"},
      {"\"gru_c\"", "\"gru_d\"", "gru_c"},
      {"{\"gru_c\"", "{\"other\":1,\"gru_c\"", "metadata 'other': expected a string"},
      {"\"F32\"", "\"F16\"", "'weight_ih_l0': expected dtype F32"},
      {"\"dtype\":\"F32\",", "", "'weight_ih_l0': expected dtype F32"},
      {"\"dtype\":\"F32\"", "\"dtype\":4", "'weight_ih_l0': expected dtype F32"},
      {"\"dtype\":\"F32\"", "\"dtype\":[\"F32\"]", "'weight_ih_l0': expected dtype F32"},
      {"\"shape\":[9,2],", "", "'weight_ih_l0': expected a shape"},
      {"\"shape\":[9,2]", "\"shape\":18", "'weight_ih_l0': expected a shape"},
      {"\"shape\":[9,2]", "\"shape\":{}", "'weight_ih_l0': expected a shape"},
      {"\"shape\":[9,2]", "\"shape\":[9,2,1,1]", "'weight_ih_l0': expected a shape"},
      {"\"shape\":[9,2]", "\"shape\":[-9,-2]", "'weight_ih_l0': a size"},
      {"\"shape\":[9,2]", "\"shape\":[9.0,2]", "'weight_ih_l0': a size"},
      {"\"shape\":[9,2]", "\"shape\":[\"9\",2]", "'weight_ih_l0': a size"},
      {"\"shape\":[9,2]", "\"shape\":[2,9]", "'weight_ih_l0': not of the shape"},
      {"\"shape\":[9,2]", "\"shape\":[18]", "'weight_ih_l0': not of the shape"},
      {"\"shape\":[9,2]", "\"shape\":[9,1,2]", "'weight_ih_l0': not of the shape"},
      {"\"shape\":[9,2]", "\"shape\":[9,3]", "'weight_ih_l0': its shape and its 72 bytes"},
      {"\"shape\":[9,2]", "\"shape\":[]", "'weight_ih_l0': its shape and its 72 bytes"},
      {",\"data_offsets\":[0,72]", "", "'weight_ih_l0': expected data_offsets"},
      {"[0,72]", "[0]", "'weight_ih_l0': expected data_offsets"},
      {"[0,72]", "[0,72,72]", "'weight_ih_l0': expected data_offsets"},
      {"[0,72]", "72", "'weight_ih_l0': expected data_offsets"},
      {"[0,72]", "[72,0]", "'weight_ih_l0': expected data_offsets"},
      {"[0,72]", "[-72,0]", "'weight_ih_l0': expected data_offsets"},
      {"[0,72]", "[0,72.0]", "'weight_ih_l0': expected data_offsets"},
      {"[0,72]", "[0,18446744073709551688]", "'weight_ih_l0': expected data_offsets"},
      {"[0,72]", "[4,76]", "overlap or leave gaps at byte 0"},
      {"[72,180]", "[36,144]", "overlap or leave gaps at byte 72"},
      {"[72,180]", "[76,184]", "overlap or leave gaps at byte 72"},
      {"\"weight_ih_l0\"", "\"weight_ih_l1\"", "no tensor 'weight_ih_l0'"},
      {"\"weight_hh_l0\"", "\"weight_hh_l0_reverse\"", "no tensor 'weight_hh_l0'"},
      {"\"bias_ih_l0\"", "\"bias_hh_l0\"", "twice"},
      {"{\"dtype\"", "{\"dtype\":\"F32\",\"dtype\"", "twice"},
  };
  for (const Wrong& wrong : kWrong)
    EXPECT_TRUE(refuses(with_head(wrong.from, wrong.to), wrong.named)) << wrong.from << " -> " << wrong.to;
  for (const char* no_head : {"", "null", "[]", "1", "\"gru_c\"", "{}", "{\"__metadata__\":{}}", "{\"__metadata__\":3}",
                              "{\"__metadata__\":{\"gru_c\":{}}}", "{\"__metadata__\":{\"gru_c\":\"\"}}"})
    EXPECT_TRUE(refuses(join(no_head, {}), "data: ")) << no_head;
}

TEST(ModelFile, TensorsThatNobodyKnows) {
  FileModel file = counted_model(kSpec);
  file.tensors.push_back({"extra", {1}, bytes_of(std::vector<float>{1.0f})});
  EXPECT_TRUE(refuses(file.bytes(), "5 tensors, 4 of which"));
  file.tensors.back() = {"bias_ih_l0_reverse", {9}, bytes_of(std::vector<float>(9))};
  EXPECT_TRUE(refuses(file.bytes(), "5 tensors, 4 of which"));
  file.tensors.pop_back();
  file.tensors.pop_back();
  EXPECT_TRUE(refuses(file.bytes(), "no tensor 'bias_hh_l0'"));
}

TEST(ModelFile, WrongStatesAndLengths) {
  const auto with = [](FileTensor tensor) {
    FileModel file = counted_model(make_spec(2, 3, 2));
    file.tensors.push_back(std::move(tensor));
    return file.bytes();
  };
  const auto floats = [](size_t count) { return bytes_of(std::vector<float>(count)); };
  EXPECT_TRUE(refuses(with({"h0", {6}, floats(6)}), "tensor 'h0'"));
  EXPECT_TRUE(refuses(with({"h0", {3, 2}, floats(6)}), "tensor 'h0'"));
  EXPECT_TRUE(refuses(with({"h0", {1, 2, 3}, floats(6)}), "tensor 'h0'"));
  EXPECT_TRUE(refuses(with({"h0", {2, 3, 1}, floats(6)}), "tensor 'h0'"));
  EXPECT_TRUE(refuses(with({"h0", {2, 3}, floats(6), "I64"}), "tensor 'h0'"));
  EXPECT_TRUE(refuses(with({"lengths", {2}, floats(2)}), "tensor 'lengths': expected dtype I64"));
  const auto numbers = [](std::vector<int64_t> n) { return bytes_of(n); };
  EXPECT_TRUE(refuses(with({"lengths", {2}, floats(2), "I64"}), "tensor 'lengths': its shape"));
  EXPECT_TRUE(refuses(with({"lengths", {1, 2}, numbers({1, 2}), "I64"}), "tensor 'lengths'"));
  EXPECT_TRUE(refuses(with({"lengths", {}, numbers({1}), "I64"}), "tensor 'lengths'"));
  EXPECT_TRUE(refuses(with({"lengths", {2}, numbers({1, -1}), "I64"}), "a length below 0"));
  EXPECT_TRUE(loads(with({"lengths", {2}, numbers({1, 0}), "I64"})));
}

TEST(ModelFile, WrongSpecs) {
  constexpr Wrong kWrong[] = {
      {"\"version\": 1, ", "", "format version"},
      {"\"version\": 1", "\"version\": 2", "format version 2"},
      {"\"version\": 1", "\"version\": \"1\"", "format version"},
      {"\"version\": 1", "\"version\": 1.0", "format version"},
      {"\"version\": 1", "\"version\": true", "format version"},
      {"\"spec\"", "\"specs\"", "no spec"},
      {"{\"version\"", "[\"version\"", "JSON"},
      {"\"zoneout\"", "\"zone\"", "unknown field 'zone'"},
      {"\"input_size\": 2", "\"input_size\": 2, \"input_size\": 2", "twice"},
      {"\"input_size\": 2", "\"input_size\": 0", "input_size"},
      {"\"input_size\": 2", "\"input_size\": -2", "input_size"},
      {"\"input_size\": 2", "\"input_size\": 2.0", "spec.input_size"},
      {"\"input_size\": 2", "\"input_size\": \"2\"", "spec.input_size"},
      {"\"input_size\": 2", "\"input_size\": null", "spec.input_size"},
      {"\"input_size\": 2", "\"input_size\": true", "spec.input_size"},
      {"\"input_size\": 2", "\"input_size\": 9223372036854775808", "spec.input_size"},
      {"\"input_size\": 2, ", "", "input_size"},
      {"\"hidden_size\": 3, ", "", "hidden_size"},
      {"\"num_layers\": 1", "\"num_layers\": 0", "num_layers"},
      {"\"num_layers\": 1", "\"num_layers\": 1025", "num_layers"},
      {"\"num_layers\": 1", "\"num_layers\": 4294967297", "num_layers"},
      {"\"bidirectional\": false", "\"bidirectional\": 0", "spec.bidirectional"},
      {"\"bidirectional\": false", "\"bidirectional\": null", "spec.bidirectional"},
      {"\"reverse\": false", "\"reverse\": \"no\"", "spec.reverse"},
      {"\"batch_first\": false", "\"batch_first\": 1", "spec.batch_first"},
      {"\"attention\": false", "\"attention\": 0", "spec.attention"},
      {"\"reset\": \"after\"", "\"reset\": \"afterwards\"", "spec.reset"},
      {"\"reset\": \"after\"", "\"reset\": 0", "spec.reset"},
      {"\"reset\": \"after\"", "\"reset\": \"candidate\"", "spec.reset"},
      {"\"update\": \"keep\"", "\"update\": null", "spec.update"},
      {"\"bias\": true", "\"bias\": \"both\"", "spec.bias"},
      {"\"bias\": true", "\"bias\": 3", "spec.bias"},
      {"\"activation\": \"tanh\"", "\"activation\": \"Tanh\"", "spec.activation"},
      {"\"activation\": \"tanh\"", "\"activation\": []", "spec.activation"},
      {"\"activation\": \"tanh\"", "\"activation\": [[\"tanh\"]]", "spec.activation"},
      {"\"activation\": \"tanh\"", "\"activation\": [\"tanh\", 1]", "spec.activation"},
      {"\"activation\": \"tanh\"", "\"activation\": [\"elu\", 1, 1]", "spec.activation"},
      {"\"activation\": \"tanh\"", "\"activation\": [\"elu\", \"1\"]", "spec.activation"},
      {"\"activation\": \"tanh\"", "\"activation\": [\"elu\", 1e999]", "spec.activation"},
      {"\"activation\": \"tanh\"", "\"activation\": [\"elu\", 1e39]", "spec.activation"},
      {"\"gate_activation\": \"sigmoid\"", "\"gate_activation\": null", "spec.gate_activation"},
      {"\"reverse_activation\": null", "\"reverse_activation\": \"tanh\"", "spec.reverse_activation"},
      {"\"reverse_gate_activation\": null", "\"reverse_gate_activation\": \"tanh\"", "spec.reverse_gate_activation"},
      {"\"clip\": null", "\"clip\": 0", "clip"},
      {"\"clip\": null", "\"clip\": -1", "clip"},
      {"\"clip\": null", "\"clip\": 1e999", "spec.clip"},
      {"\"clip\": null", "\"clip\": \"1\"", "spec.clip"},
      {"\"norm\": null", "\"norm\": \"layer\"", "spec.norm"},
      {"\"norm\": null", "\"norm\": \"layer_sum\"", "spec.reset"},
      {"\"norm_steps\": 0", "\"norm_steps\": 1", "norm_steps"},
      {"\"norm_steps\": 0", "\"norm_steps\": -1", "norm_steps"},
      {"\"norm_epsilon\": 9.99999975e-06", "\"norm_epsilon\": 0", "norm_epsilon"},
      {"\"norm_epsilon\": 9.99999975e-06", "\"norm_epsilon\": null", "norm_epsilon"},
      {"\"zoneout\": 0", "\"zoneout\": 1.5", "zoneout"},
      {"\"zoneout\": 0", "\"zoneout\": -0.5", "zoneout"},
  };
  for (const Wrong& wrong : kWrong)
    EXPECT_TRUE(refuses(with_about(wrong.from, wrong.to), wrong.named)) << wrong.from << " -> " << wrong.to;
  gruc_spec both = make_spec(2, 3, 1, GRUC_BIDIRECTIONAL);
  FileModel file = counted_model(both);
  file.about = replaced(file.about, "\"reverse\": false", "\"reverse\": true");
  EXPECT_TRUE(refuses(file.bytes(), "spec.reverse"));
}

}  // namespace
}  // namespace gruc::test
