// The grid of golden cases; golden_run.cpp runs them. Must not include the core's internals.
#include "golden_cases.h"

#include <array>
#include <limits>

namespace gruc::golden {
namespace {

constexpr float kNoClip = std::numeric_limits<float>::infinity();

std::string number(int64_t n) { return std::to_string(n); }

class Grid {
 public:
  Case& add(std::string name, int64_t input, int64_t hidden, int64_t steps, int64_t batch) {
    Case c;
    c.name = std::move(name);
    c.steps = steps;
    c.batch = batch;
    gruc_spec_init(&c.spec);
    c.spec.input_size = input;
    c.spec.hidden_size = hidden;
    gruc_training_init(&c.training);
    cases.push_back(std::move(c));
    return cases.back();
  }
  std::vector<Case> cases;
};

// Every pair of odd sizes with either reset; rows, steps, update and biases change along, each with a period of its
// own.
void add_sizes(Grid& grid) {
  constexpr std::array<int64_t, 8> kSizes = {1, 3, 15, 16, 17, 31, 33, 100}, kRows = {1, 2, 3, 1, 6, 7, 9, 24};
  constexpr std::array<int64_t, 5> kSteps = {1, 2, 5, 3, 9};
  size_t i = 0;
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int64_t input : kSizes)
      for (const int64_t hidden : kSizes) {
        const int64_t rows = kRows[i * 3 % 8], steps = kSteps[i % 5];
        const bool take = i / 2 % 2 != 0;
        const auto bias = static_cast<int32_t>(3 - i / 3 % 4);
        Case& c = grid.add("sizes-" + std::string(reset == GRUC_RESET_AFTER ? "after" : "before") +
                               (take ? "-take" : "-keep") + "-bias" + number(bias) + "-I" + number(input) + "-H" +
                               number(hidden) + "-T" + number(steps) + "-B" + number(rows),
                           input, hidden, steps, rows);
        c.spec.reset = reset;
        c.spec.update = take ? GRUC_UPDATE_TAKE : GRUC_UPDATE_KEEP;
        c.spec.bias = bias;
        c.training.recompute = i % 7 == 0;
        c.ragged = rows > 2 && i % 3 == 0;
        ++i;
      }
}

// One row for long: time loops inside a kernel, chunks, and the next group's product beside the steps.
void add_long(Grid& grid) {
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int64_t hidden : {8, 17, 33, 100, 140}) {
      const std::string name = "long-" + std::string(reset == GRUC_RESET_AFTER ? "after" : "before");
      grid.add(name + "-H" + number(hidden), hidden == 8 ? 1 : hidden, hidden, 150, 1).spec.reset = reset;
    }
  grid.add("long-rows-H33", 20, 33, 90, 8).ragged = true;
}

void add_activations(Grid& grid) {
  constexpr const char* kNames[] = {"sigmoid",     "tanh",         "relu", "affine",   "leaky_relu", "thresholded_relu",
                                    "scaled_tanh", "hard_sigmoid", "elu",  "softsign", "softplus"};
  constexpr float kAlpha[] = {0, 0, 0, 0.5f, 0.125f, 0.25f, 1.7159f, 0.2f, 0.75f, 0, 0};
  constexpr float kBeta[] = {0, 0, 0, 0.25f, 0, 0, 0.6666667f, 0.5f, 0, 0, 0};
  for (int32_t kind = GRUC_SIGMOID; kind <= GRUC_SOFTPLUS; ++kind) {
    const gruc_activation f = {kind, kAlpha[kind], kBeta[kind]};
    for (const char* place : {"gate", "candidate", "both"}) {
      const std::string where = place;
      for (const Data data : {Data::kOrdinary, Data::kWild}) {
        if (data == Data::kWild && where != "both") continue;
        Case& c = grid.add("activation-" + std::string(kNames[kind]) + "-" + where +
                               (data == Data::kWild ? "-wild"
                                : where == "both"   ? "-clip"
                                                    : ""),
                           5, 17, 6, 3);
        if (where != "candidate") c.spec.gate_activation[0] = f;
        if (where != "gate") c.spec.activation[0] = f;
        c.spec.clip = where == "both" && data == Data::kOrdinary ? 0.75f : kNoClip;
        c.spec.reset = where == "both" ? GRUC_RESET_BEFORE : GRUC_RESET_AFTER;
        c.data = data;
      }
    }
  }
}

void add_norms(Grid& grid) {
  constexpr const char* kNames[] = {"none",        "layer_gates", "layer_products", "layer_sum",
                                    "layer_state", "batch_input", "batch_step",     "batch_mixed"};
  for (int32_t norm = GRUC_NORM_NONE; norm <= GRUC_NORM_BATCH_MIXED; ++norm)
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE, GRUC_RESET_CANDIDATE}) {
      if ((norm == GRUC_NORM_LAYER_SUM) != (reset == GRUC_RESET_CANDIDATE)) continue;
      if (norm == GRUC_NORM_LAYER_PRODUCTS && reset == GRUC_RESET_BEFORE) continue;
      const bool batch = norm >= GRUC_NORM_BATCH_INPUT;
      for (const int64_t statistics : {0, 1, 3}) {
        if (statistics > (norm == GRUC_NORM_BATCH_INPUT ? 1 : batch ? 3 : 0)) continue;
        for (const bool other : {false, true}) {
          if (norm == GRUC_NORM_NONE && !other) continue;
          Case& c = grid.add("norm-" + std::string(kNames[norm]) + "-reset" + number(reset) + "-S" +
                                 number(statistics) + (other ? "-zoneout-stack" : ""),
                             5, other ? 33 : 17, 6, 5);
          c.spec.reset = reset;
          c.spec.norm = norm;
          c.spec.norm_steps = statistics;
          if (!other) continue;
          c.spec.zoneout = 0.25f;
          c.spec.num_layers = 2;
          c.spec.update = GRUC_UPDATE_TAKE;
          c.training.seed = 5;
          // Directions have no stream, so one kind of network keeps to one direction.
          if (reset != GRUC_RESET_BEFORE) c.spec.direction = GRUC_BIDIRECTIONAL;
          c.ragged = true;
        }
      }
    }
}

void add_others(Grid& grid) {
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    const std::string variant = reset == GRUC_RESET_AFTER ? "-after" : "-before";
    Case* c = &grid.add("attention" + variant, 4, 33, 7, 3);
    c->spec.reset = reset;
    c->spec.attention = 1;
    c->ragged = true;

    c = &grid.add("stack" + variant, 3, 20, 9, 2);
    c->spec.reset = reset;
    c->spec.num_layers = 3;
    c = &grid.add("stack-both-ways" + variant, 3, 20, 9, 4);
    c->spec.reset = reset;
    c->spec.num_layers = 2;
    c->spec.direction = GRUC_BIDIRECTIONAL;
    c->ragged = true;
    c = &grid.add("reverse" + variant, 6, 15, 8, 3);
    c->spec.reset = reset;
    c->spec.direction = GRUC_REVERSE;
    c->ragged = true;

    c = &grid.add("masks" + variant, 6, 33, 5, 3);
    c->spec.reset = reset;
    c->spec.num_layers = 2;
    c->training.seed = 0x123456789abcdef0;
    c->training.dropout = 0.25f;
    c->training.drop_connect = 0.5f;
    c->training.input_dropout = 0.125f;
    c->training.state_dropout = 0.375f;
    c = &grid.add("masks-recompute" + variant, 6, 17, 5, 3);
    c->spec.reset = reset;
    c->spec.num_layers = 2;
    c->training.recompute = 1;
    c->training.dropout = 0.25f;

    for (const Data data : {Data::kSilent, Data::kWild}) {
      c = &grid.add((data == Data::kWild ? "wild" : "silent") + variant, 7, 33, 12, 3);
      c->spec.reset = reset;
      c->data = data;
    }
    c = &grid.add("no-rows" + variant, 2, 5, 4, 0);
    c->spec.reset = reset;
    c = &grid.add("no-steps" + variant, 2, 5, 0, 3);
    c->spec.reset = reset;

    c = &grid.add("whole" + variant, 3, 17, 4, 2);
    c->spec.reset = reset;
    c->whole = true;
  }
  Case& norm = grid.add("whole-norm", 3, 5, 3, 2);
  norm.spec.norm = GRUC_NORM_LAYER_GATES;
  norm.spec.zoneout = 0.25f;
  norm.whole = true;
}

}  // namespace

std::vector<Case> cases() {
  Grid grid;
  add_sizes(grid);
  add_long(grid);
  add_activations(grid);
  add_norms(grid);
  add_others(grid);
  return std::move(grid.cases);
}

}  // namespace gruc::golden
