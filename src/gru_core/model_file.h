// A model file in memory: a spec and its parameters, checked against each other.
// Must not include packed weights or anything that computes.
#pragma once
#include <string>
#include <vector>

#include "spec.h"

// What a file holds; the pointers go into `floats`.
struct gruc_model {
  gruc_spec spec;
  std::vector<gruc_layer_params> params;  // [L * D]
  std::vector<float> floats;
  const float* h0;  // [L*D, h0_batch, H] or nullptr
  int64_t h0_batch;
  bool has_lengths;
  std::vector<int64_t> lengths;
};

namespace gruc {

// Both throw Error(GRUC_INVALID_ARGUMENT) whose message begins with the path or with `where`, or names the spec's
// field.
gruc_model* load_model(const char* path);
gruc_model* parse_model(const unsigned char* data, size_t size, const std::string& where);

}  // namespace gruc
