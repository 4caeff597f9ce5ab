// The tape of a training call, in memory of the caller: what was taped, and per layer and direction LayerTape's rows.
// Must not include kernels.
#pragma once
#include "arena.h"
#include "backend.h"

namespace gruc {

class Tape {
 public:
  // All throw Error(GRUC_INVALID_ARGUMENT) that names what is wrong. The sequence must have been checked.
  static size_t size(const Spec& spec, const gruc_sequence& sequence, const gruc_training& training);
  // A new tape of this call in `memory`, to be sealed when everything is on it: before, no one can open it.
  static Tape create(const Spec& spec, const gruc_sequence& sequence, const gruc_training& training, void* memory,
                     size_t size);
  // The tape of this very call; throws where it is another's.
  static Tape open(const Spec& spec, const gruc_sequence& sequence, const gruc_training& training, const void* memory,
                   size_t size);

  // That run, over all steps.
  static int64_t count_rows(const gruc_sequence& sequence);

  LayerTape layer(const Spec& spec, int64_t index) const;
  Dropout dropout(const Spec& spec, int32_t layer, int64_t direction) const;
  void seal() const;
  int64_t rows() const;
  bool recompute() const;
  bool is_unfused() const;
  // Of zoneout, input and state of a layer in one direction; and of drop_connect.
  Unfused unfused(const Spec& spec, const gruc_sequence& sequence, int64_t index) const;
  Mask drop_connect(int64_t index) const;

 private:
  struct Head;
  static Tape place(Arena& arena, const Spec& spec, const gruc_sequence& sequence, const gruc_training& training);
  static Head head_of(const Spec& spec, const gruc_sequence& sequence, const gruc_training& training);
  static void check_memory(const void* memory, size_t size, size_t needed);

  Head* head_;
  int64_t* offsets_;  // [T + 1]; nullptr where all rows run to the end
  std::byte* layers_;
};

}  // namespace gruc
