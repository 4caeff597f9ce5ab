// What the tests of gru_core.hpp share, with and without exceptions: a small model file.
// Must not include GoogleTest, nor the core's internals.
#pragma once
#include "model_writer.h"

namespace gruc::test {

// One layer; every parameter is 0.25, and the network's own h0 0.5.
inline FileBytes small_model(int64_t inputs, int64_t hidden) {
  gruc_spec spec;
  gruc_spec_init(&spec);
  spec.input_size = inputs;
  spec.hidden_size = hidden;
  FileModel model = counted_model(spec);
  for (FileTensor& tensor : model.tensors)
    tensor.data = bytes_of(std::vector<float>(tensor.data.size() / sizeof(float), 0.25f));
  FileTensor& h0 = model.tensor("h0");
  h0.shape = {1, 1, hidden};
  h0.data = bytes_of(std::vector<float>(static_cast<size_t>(hidden), 0.5f));
  return model.bytes();
}

}  // namespace gruc::test
