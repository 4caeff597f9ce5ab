// The groups of public calls that the target `calls` makes: right ones, whose answers must agree with each other, and
// spoiled ones, which must be refused and write nothing. What the header leaves to the caller is done right: arrays of
// the size that their shapes say, no overlaps, no use after destruction, one thread at a time for a state.
#pragma once
#include <functional>
#include <vector>

#include "frames.h"
#include "network.h"

namespace gruc::fuzz {

// A call over sequences, all of whose arrays lie at their ends.
struct Sequence {
  Sequence(Bytes& in, const Network& network);

  // Makes the call wrong in one way; false where that came to nothing, and what the call is now is unknown.
  bool spoil(Bytes& in);
  int64_t length(int64_t row) const { return lengths.empty() ? s.steps : lengths[static_cast<size_t>(row)]; }
  // Whether a training call has batch statistics to take.
  bool has_rows_for_statistics() const;
  // Compares with the same call, made plainly: default layouts, one thread, no workspace. Once: it spends y.
  using Run = std::function<gruc_status(const gruc_sequence&)>;
  void require_plain_answer(const gruc_weights* weights, const Run& run);

  const gruc_spec& spec;
  int64_t batch, steps;
  Frames x, y, attention;
  std::vector<int64_t> lengths;  // empty: whole rows
  Floats h0, h_n;
  gruc_sequence s;
};

void call_with_nulls(const Network& network);
void call_with_struct_sizes(Bytes& in, const Network& network);
void ask_for_sizes(Bytes& in, const Network& network);
void call_streams(Bytes& in, const Network& network);
void call_sequences(Bytes& in, const Network& network);
void call_training(Bytes& in, const Network& network);

}  // namespace gruc::fuzz
