// See tape.h.
#include "tape.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "arena.h"
#include "call.h"
#include "status.h"
#include "unfused_tape.h"

namespace gruc {

// What a tape is of: compared as bytes.
struct Tape::Head {
  uint64_t magic;
  int64_t input_size, hidden_size, steps, batch, rows;
  uint64_t lengths;  // a hash of them
  int32_t num_layers, direction, reset, norm, attention, ragged, recompute, unfused, drops;
  float dropout, zoneout, drop_connect, input_dropout, state_dropout;
  uint32_t last_dropped;
  uint64_t seed;
};

namespace {

constexpr uint64_t kMagic = 0x31455041545f4752;  // "RG_TAPE1"

// Rows that run before each step [T + 1], from lengths that end no later than T.
void count_offsets(const gruc_sequence& s, int64_t* offsets) {
  std::fill(offsets, offsets + s.steps + 1, 0);
  // First, one place on, how many rows end before each step.
  for (int64_t b = 0; b < s.batch; ++b)
    if (s.lengths[b] < s.steps) ++offsets[s.lengths[b] + 1];
  int64_t running = s.batch;
  for (int64_t step = 0; step < s.steps; ++step) {
    running -= offsets[step + 1];
    offsets[step + 1] = offsets[step] + running;
  }
}

// FNV-1a (Fowler, Noll, Vo), a number at a time.
uint64_t hash(const int64_t* numbers, int64_t count) {
  uint64_t h = 0xcbf29ce484222325;
  for (int64_t i = 0; i < count; ++i) h = (h ^ static_cast<uint64_t>(numbers[i])) * 0x100000001b3;
  return h;
}

size_t layer_bytes(const Spec& spec, int64_t rows, int64_t steps, bool recompute, bool unfused) {
  Arena counter;
  if (unfused)
    place_unfused_tape(counter, spec, rows, steps);
  else
    counter.take<float>(static_cast<int64_t>(
        checked_product(static_cast<size_t>(rows), static_cast<size_t>(tape_row_floats(spec, recompute)))));
  return counter.size();
}

// The kinds of masks, as gruc_training numbers them.
enum MaskKind : uint32_t { kZoneout = 1, kDropConnect = 2, kInput = 3, kState = 4 };

Mask make_mask(float probability, float scale, uint64_t key, MaskKind kind, int64_t index) {
  const uint64_t limit = drop_threshold(probability);
  return {limit > 0, key, kind << 28 | static_cast<uint32_t>(index), static_cast<uint32_t>(limit - (limit > 0 ? 1 : 0)),
          scale};
}
float kept_scale(float probability) { return 1.0f / (1.0f - probability); }

}  // namespace

int64_t Tape::count_rows(const gruc_sequence& s) {
  // Of whole rows first: no sum of lengths is larger.
  const size_t all = checked_product(static_cast<size_t>(s.steps), static_cast<size_t>(s.batch));
  if (s.lengths == nullptr) return static_cast<int64_t>(all);
  int64_t rows = 0;
  for (int64_t b = 0; b < s.batch; ++b) rows += s.lengths[b];
  return rows;
}

Tape Tape::place(Arena& arena, const Spec& spec, const gruc_sequence& s, const gruc_training& training) {
  check_training(spec, training);
  const bool unfused = trains_unfused(spec, training);
  Tape tape{};
  tape.head_ = arena.take<Head>(1);
  // T = 2^63 - 1 is a legal count of steps, and one more of int64_t overflows.
  if (s.lengths != nullptr)
    tape.offsets_ = arena.take<int64_t>(static_cast<int64_t>(checked_product(static_cast<size_t>(s.steps) + 1, 1)));
  tape.layers_ = arena.take<std::byte>(
      static_cast<int64_t>(checked_product(layer_bytes(spec, count_rows(s), s.steps, training.recompute != 0, unfused),
                                           static_cast<size_t>(layer_count(spec)))));
  return tape;
}

size_t Tape::size(const Spec& spec, const gruc_sequence& s, const gruc_training& training) {
  Arena counter;
  place(counter, spec, s, training);
  return counter.size();
}

Tape::Head Tape::head_of(const Spec& spec, const gruc_sequence& s, const gruc_training& training) {
  const bool drops = training.dropout > 0.0f && drop_threshold(training.dropout) > 0 && spec.num_layers > 1;
  Head head;
  std::memset(&head, 0, sizeof head);
  head.magic = kMagic;
  head.input_size = spec.input_size;
  head.hidden_size = spec.hidden_size;
  head.steps = s.steps;
  head.batch = s.batch;
  head.rows = count_rows(s);
  head.lengths = s.lengths == nullptr ? 0 : hash(s.lengths, s.batch);
  head.num_layers = spec.num_layers;
  head.direction = spec.direction;
  head.reset = spec.reset;
  head.norm = spec.norm;
  head.attention = spec.attention;
  head.unfused = trains_unfused(spec, training);
  head.zoneout = spec.zoneout;
  head.drop_connect = training.drop_connect;
  head.input_dropout = training.input_dropout;
  head.state_dropout = training.state_dropout;
  head.ragged = s.lengths != nullptr;
  head.recompute = training.recompute != 0;
  head.drops = drops;
  head.dropout = training.dropout;
  head.last_dropped = drops ? static_cast<uint32_t>(drop_threshold(training.dropout) - 1) : 0;
  head.seed = training.seed;
  return head;
}

void Tape::check_memory(const void* memory, size_t size, size_t needed) {
  if (memory == nullptr) fail_argument("tape: expected memory, got NULL");
  if (reinterpret_cast<uintptr_t>(memory) % kAlignment != 0) fail_argument("tape: expected memory aligned to 64 bytes");
  if (size < needed)
    fail_argument("tape_size: expected " + std::to_string(needed) + " bytes or more, got " + std::to_string(size));
}

Tape Tape::create(const Spec& spec, const gruc_sequence& s, const gruc_training& training, void* memory, size_t size) {
  check_memory(memory, size, Tape::size(spec, s, training));
  Arena arena(memory);
  const Tape tape = place(arena, spec, s, training);
  *tape.head_ = head_of(spec, s, training);
  tape.head_->magic = 0;
  if (s.lengths != nullptr) count_offsets(s, tape.offsets_);
  return tape;
}

Tape Tape::open(const Spec& spec, const gruc_sequence& s, const gruc_training& training, const void* memory,
                size_t size) {
  check_memory(memory, size, Tape::size(spec, s, training));
  Arena arena(const_cast<void*>(memory));  // only read from here on
  const Tape tape = place(arena, spec, s, training);
  const Head expected = head_of(spec, s, training);
  if (std::memcmp(tape.head_, &expected, sizeof expected) != 0)
    fail_argument("tape: is not of gruc_forward_train with these weights, sequence and training");
  return tape;
}

LayerTape Tape::layer(const Spec& spec, int64_t index) const {
  const size_t bytes = layer_bytes(spec, head_->rows, head_->steps, head_->recompute != 0, head_->unfused != 0);
  return {reinterpret_cast<float*>(layers_ + static_cast<size_t>(index) * bytes), offsets_, head_->recompute != 0};
}

Dropout Tape::dropout(const Spec& spec, int32_t layer, int64_t direction) const {
  const bool on = head_->drops != 0 && layer < spec.num_layers - 1;
  return {on,
          head_->seed,
          static_cast<uint32_t>(layer),
          head_->last_dropped,
          1.0f / (1.0f - head_->dropout),
          directions(spec) * spec.hidden_size,
          direction * spec.hidden_size};
}

int64_t Tape::rows() const { return head_->rows; }
bool Tape::recompute() const { return head_->recompute != 0; }
bool Tape::is_unfused() const { return head_->unfused != 0; }
void Tape::seal() const { head_->magic = kMagic; }

Unfused Tape::unfused(const Spec& spec, const gruc_sequence& s, int64_t index) const {
  Unfused unfused{};
  unfused.on = head_->unfused != 0;
  unfused.attention = spec.attention != 0 ? s.attention : nullptr;
  unfused.attention_step_stride = s.attention_step_stride;
  unfused.attention_batch_stride = s.attention_batch_stride;
  unfused.zoneout = make_mask(head_->zoneout, 1.0f, head_->seed, kZoneout, index);
  unfused.input = make_mask(head_->input_dropout, kept_scale(head_->input_dropout), head_->seed, kInput, index);
  unfused.state = make_mask(head_->state_dropout, kept_scale(head_->state_dropout), head_->seed, kState, index);
  return unfused;
}
Mask Tape::drop_connect(int64_t index) const {
  return make_mask(head_->drop_connect, kept_scale(head_->drop_connect), head_->seed, kDropConnect, index);
}

}  // namespace gruc
