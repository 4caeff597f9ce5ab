// The ABI as it was frozen in version 1: the size of every struct, and where its fields stand, where pointers have 64
// bits. A line of this list never changes; a later release may only add fields at the end of a struct with a
// struct_size, each beyond the size that stands here.
// Must not include the core's internals.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <vector>

#include "gru_core/gru_core.h"

namespace {

struct Field {
  const char* name;
  size_t offset, size, found_offset, found_size;
};
struct Struct {
  const char* name;
  size_t size, found_size;
  std::vector<Field> fields;
};

#define GRUC_STRUCT(type, size) #type, size, sizeof(type)
#define GRUC_FIELD(type, field, offset, size) {#field, offset, size, offsetof(type, field), sizeof(type::field)}

const std::vector<Struct>& version_1() {
  static const std::vector<Struct> all = {
      {GRUC_STRUCT(gruc_activation, 12),
       {
           GRUC_FIELD(gruc_activation, kind, 0, 4),
           GRUC_FIELD(gruc_activation, alpha, 4, 4),
           GRUC_FIELD(gruc_activation, beta, 8, 4),
       }},
      {GRUC_STRUCT(gruc_spec, 120),
       {
           GRUC_FIELD(gruc_spec, struct_size, 0, 4),
           GRUC_FIELD(gruc_spec, num_layers, 4, 4),
           GRUC_FIELD(gruc_spec, input_size, 8, 8),
           GRUC_FIELD(gruc_spec, hidden_size, 16, 8),
           GRUC_FIELD(gruc_spec, direction, 24, 4),
           GRUC_FIELD(gruc_spec, reset, 28, 4),
           GRUC_FIELD(gruc_spec, update, 32, 4),
           GRUC_FIELD(gruc_spec, bias, 36, 4),
           GRUC_FIELD(gruc_spec, gate_activation, 40, 24),
           GRUC_FIELD(gruc_spec, activation, 64, 24),
           GRUC_FIELD(gruc_spec, clip, 88, 4),
           GRUC_FIELD(gruc_spec, norm, 92, 4),
           GRUC_FIELD(gruc_spec, norm_epsilon, 96, 4),
           GRUC_FIELD(gruc_spec, norm_steps, 104, 8),
           GRUC_FIELD(gruc_spec, zoneout, 112, 4),
           GRUC_FIELD(gruc_spec, attention, 116, 4),
       }},
      {GRUC_STRUCT(gruc_layer_params, 96),
       {
           GRUC_FIELD(gruc_layer_params, weight_ih, 0, 8),
           GRUC_FIELD(gruc_layer_params, weight_hh, 8, 8),
           GRUC_FIELD(gruc_layer_params, bias_ih, 16, 8),
           GRUC_FIELD(gruc_layer_params, bias_hh, 24, 8),
           GRUC_FIELD(gruc_layer_params, gain_ih, 32, 8),
           GRUC_FIELD(gruc_layer_params, gain_hh, 40, 8),
           GRUC_FIELD(gruc_layer_params, gain_state, 48, 8),
           GRUC_FIELD(gruc_layer_params, bias_state, 56, 8),
           GRUC_FIELD(gruc_layer_params, mean_ih, 64, 8),
           GRUC_FIELD(gruc_layer_params, var_ih, 72, 8),
           GRUC_FIELD(gruc_layer_params, mean_hh, 80, 8),
           GRUC_FIELD(gruc_layer_params, var_hh, 88, 8),
       }},
      {GRUC_STRUCT(gruc_sequence, 144),
       {
           GRUC_FIELD(gruc_sequence, struct_size, 0, 4),
           GRUC_FIELD(gruc_sequence, threads, 4, 4),
           GRUC_FIELD(gruc_sequence, steps, 8, 8),
           GRUC_FIELD(gruc_sequence, batch, 16, 8),
           GRUC_FIELD(gruc_sequence, x, 24, 8),
           GRUC_FIELD(gruc_sequence, x_step_stride, 32, 8),
           GRUC_FIELD(gruc_sequence, x_batch_stride, 40, 8),
           GRUC_FIELD(gruc_sequence, lengths, 48, 8),
           GRUC_FIELD(gruc_sequence, h0, 56, 8),
           GRUC_FIELD(gruc_sequence, y, 64, 8),
           GRUC_FIELD(gruc_sequence, y_step_stride, 72, 8),
           GRUC_FIELD(gruc_sequence, y_batch_stride, 80, 8),
           GRUC_FIELD(gruc_sequence, h_n, 88, 8),
           GRUC_FIELD(gruc_sequence, workspace, 96, 8),
           GRUC_FIELD(gruc_sequence, workspace_size, 104, 8),
           GRUC_FIELD(gruc_sequence, first_step, 112, 8),
           GRUC_FIELD(gruc_sequence, attention, 120, 8),
           GRUC_FIELD(gruc_sequence, attention_step_stride, 128, 8),
           GRUC_FIELD(gruc_sequence, attention_batch_stride, 136, 8),
       }},
      {GRUC_STRUCT(gruc_training, 40),
       {
           GRUC_FIELD(gruc_training, struct_size, 0, 4),
           GRUC_FIELD(gruc_training, recompute, 4, 4),
           GRUC_FIELD(gruc_training, dropout, 8, 4),
           GRUC_FIELD(gruc_training, seed, 16, 8),
           GRUC_FIELD(gruc_training, drop_connect, 24, 4),
           GRUC_FIELD(gruc_training, input_dropout, 28, 4),
           GRUC_FIELD(gruc_training, state_dropout, 32, 4),
       }},
      {GRUC_STRUCT(gruc_layer_gradients, 64),
       {
           GRUC_FIELD(gruc_layer_gradients, weight_ih, 0, 8),
           GRUC_FIELD(gruc_layer_gradients, weight_hh, 8, 8),
           GRUC_FIELD(gruc_layer_gradients, bias_ih, 16, 8),
           GRUC_FIELD(gruc_layer_gradients, bias_hh, 24, 8),
           GRUC_FIELD(gruc_layer_gradients, gain_ih, 32, 8),
           GRUC_FIELD(gruc_layer_gradients, gain_hh, 40, 8),
           GRUC_FIELD(gruc_layer_gradients, gain_state, 48, 8),
           GRUC_FIELD(gruc_layer_gradients, bias_state, 56, 8),
       }},
      {GRUC_STRUCT(gruc_gradients, 120),
       {
           GRUC_FIELD(gruc_gradients, struct_size, 0, 4),
           GRUC_FIELD(gruc_gradients, dy, 8, 8),
           GRUC_FIELD(gruc_gradients, dy_step_stride, 16, 8),
           GRUC_FIELD(gruc_gradients, dy_batch_stride, 24, 8),
           GRUC_FIELD(gruc_gradients, dh_n, 32, 8),
           GRUC_FIELD(gruc_gradients, dx, 40, 8),
           GRUC_FIELD(gruc_gradients, dx_step_stride, 48, 8),
           GRUC_FIELD(gruc_gradients, dx_batch_stride, 56, 8),
           GRUC_FIELD(gruc_gradients, dh0, 64, 8),
           GRUC_FIELD(gruc_gradients, params, 72, 8),
           GRUC_FIELD(gruc_gradients, workspace, 80, 8),
           GRUC_FIELD(gruc_gradients, workspace_size, 88, 8),
           GRUC_FIELD(gruc_gradients, dattention, 96, 8),
           GRUC_FIELD(gruc_gradients, dattention_step_stride, 104, 8),
           GRUC_FIELD(gruc_gradients, dattention_batch_stride, 112, 8),
       }},
  };
  return all;
}

TEST(Abi, IsVersion1) { EXPECT_EQ(gruc_abi_version(), 1u); }

TEST(Abi, StructsAreThoseOfVersion1) {
  if (sizeof(void*) != 8) GTEST_SKIP() << "the list is that of 64-bit pointers";
  for (const Struct& s : version_1()) {
    EXPECT_EQ(s.found_size, s.size) << s.name;
    size_t end = 0;
    for (const Field& f : s.fields) {
      EXPECT_EQ(f.found_offset, f.offset) << s.name << "." << f.name;
      EXPECT_EQ(f.found_size, f.size) << s.name << "." << f.name;
      EXPECT_LT(f.offset - end, 8u) << s.name << ": a field before " << f.name << " is missing in the list";
      end = f.offset + f.size;
    }
    EXPECT_LT(s.size - end, 8u) << s.name << ": its last field is missing in the list";
  }
}

TEST(Abi, EnumsAreOfTheSizeOfInt) {
  EXPECT_EQ(sizeof(gruc_status), sizeof(int));
  EXPECT_EQ(sizeof(gruc_direction), sizeof(int));
}

// What a caller with an older header has is filled and nothing beyond it; what one with a newer header has more, is
// zero.
TEST(Abi, InitFillsTheCallersStruct) {
  gruc_spec whole;
  gruc_spec_init(&whole);
  for (const uint32_t size : {uint32_t{8}, uint32_t{88}, static_cast<uint32_t>(sizeof whole)}) {
    unsigned char memory[sizeof whole + 16];
    std::memset(memory, 0xa5, sizeof memory);
    gruc_spec_init_sized(reinterpret_cast<gruc_spec*>(memory), size);
    uint32_t found;
    std::memcpy(&found, memory, sizeof found);
    EXPECT_EQ(found, size);
    EXPECT_EQ(std::memcmp(memory + 4, reinterpret_cast<unsigned char*>(&whole) + 4, size - 4), 0);
    for (size_t i = size; i < sizeof memory; ++i) ASSERT_EQ(memory[i], 0xa5) << i;
  }
  alignas(8) unsigned char newer[sizeof whole + 16];
  std::memset(newer, 0xa5, sizeof newer);
  gruc_spec_init_sized(reinterpret_cast<gruc_spec*>(newer), sizeof newer);
  for (size_t i = sizeof whole; i < sizeof newer; ++i) ASSERT_EQ(newer[i], 0) << i;
  EXPECT_EQ(gruc_spec_validate(reinterpret_cast<gruc_spec*>(newer)), GRUC_INVALID_ARGUMENT);
  EXPECT_NE(std::strstr(gruc_last_error(), "struct_size"), nullptr);
}

TEST(Abi, EveryInitGivesItsSize) {
  gruc_spec spec;
  gruc_spec_init(&spec);
  EXPECT_EQ(spec.struct_size, sizeof spec);
  const float w[3] = {0.1f, 0.2f, 0.3f};
  const gruc_layer_params params = {w, w, w, w, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  gruc_weights* weights = nullptr;
  ASSERT_EQ(gruc_weights_create(&spec, &params, 1, &weights), GRUC_OK);
  gruc_sequence sequence;
  gruc_training training;
  gruc_gradients gradients;
  EXPECT_EQ(gruc_sequence_init(weights, 1, 1, &sequence), GRUC_OK);
  gruc_training_init(&training);
  EXPECT_EQ(gruc_gradients_init(weights, 1, 1, &gradients), GRUC_OK);
  EXPECT_EQ(sequence.struct_size, sizeof sequence);
  EXPECT_EQ(training.struct_size, sizeof training);
  EXPECT_EQ(gradients.struct_size, sizeof gradients);
  gruc_weights_destroy(weights);
}

}  // namespace
