// See calls.h: gruc_forward and its workspace.
#include <algorithm>

#include "calls.h"

namespace gruc::fuzz {
namespace {

// How many steps fit an input's time, under sanitizers and without vectors.
int64_t draw_steps(Bytes& in, const gruc_spec& spec, int64_t batch) {
  constexpr int64_t kMostWork = 120000;
  return std::min(in.up_to(in.one_in(4) ? 40 : 9), kMostWork / (step_work(spec) * std::max<int64_t>(batch, 1)));
}

std::vector<int64_t> draw_lengths(Bytes& in, int64_t steps, int64_t batch) {
  std::vector<int64_t> lengths;
  if (in.one_in(2))
    for (int64_t b = 0; b < batch; ++b) lengths.push_back(in.up_to(steps));
  return lengths;
}

gruc_sequence defaults(const gruc_weights* weights, int64_t steps, int64_t batch) {
  gruc_sequence s;
  require_ok(gruc_sequence_init(weights, steps, batch, &s), "a sequence's defaults");
  return s;
}

}  // namespace

Sequence::Sequence(Bytes& in, const Network& network)
    : spec(network.spec()),
      batch(in.up_to(in.one_in(4) ? 19 : 4)),
      steps(draw_steps(in, spec, batch)),
      x(in, steps, batch, spec.input_size),
      y(in, steps, batch, width(spec)),
      attention(in, steps, spec.attention != 0 ? batch : 0, 1),
      lengths(draw_lengths(in, steps, batch)),
      h0(in.one_in(2) ? layer_count(spec) * batch * spec.hidden_size : 0, in),
      h_n(layer_count(spec) * batch * spec.hidden_size),
      s(defaults(network.weights(), steps, batch)) {
  x.draw(in);
  attention.draw(in);
  x.forbid(lengths);
  if (spec.attention != 0) attention.forbid(lengths);
  s.threads = static_cast<int32_t>(in.one_in(4) ? 2 + in.up_to(2) : 1);
  s.x = x.data();
  s.x_step_stride = x.step_stride();
  s.x_batch_stride = x.batch_stride();
  s.lengths = lengths.empty() ? nullptr : lengths.data();
  s.h0 = h0.size() == 0 ? nullptr : h0.data();
  s.y = y.data();
  s.y_step_stride = y.step_stride();
  s.y_batch_stride = y.batch_stride();
  s.h_n = h_n.data();
  if (spec.attention != 0) {
    s.attention = attention.data();
    s.attention_step_stride = attention.step_stride();
    s.attention_batch_stride = attention.batch_stride();
  }
}

bool Sequence::has_rows_for_statistics() const {
  if (!takes_statistics(spec) || steps == 0) return true;
  int64_t rows = 0;
  for (int64_t b = 0; b < batch; ++b)
    rows += spec.norm == GRUC_NORM_BATCH_INPUT ? length(b) : std::min<int64_t>(length(b), 1);
  return rows != 1;
}

bool Sequence::spoil(Bytes& in) {
  const bool is_empty = steps == 0 || batch == 0;
  const int64_t any = in.wild();
  switch (in.up_to(7)) {
    case 0:
      s.struct_size = static_cast<uint32_t>(any);
      return s.struct_size != sizeof s;
    case 1:
      s.steps = any;
      return any < 0;
    case 2:
      s.batch = any;
      return any < 0;
    case 3:
      s.threads = static_cast<int32_t>(any);
      return s.threads < 1;
    case 4:
      s.x = nullptr;
      return !is_empty;
    case 5:
      if (lengths.empty()) return false;
      lengths[in.byte() % lengths.size()] = any;
      return any < 0 || any > steps;
    case 6:
      s.first_step = any;
      return any < 0;
    default:
      s.attention = s.attention == nullptr ? h_n.data() : nullptr;
      return spec.attention == 0 ? true : !is_empty;
  }
}

void Sequence::require_plain_answer(const gruc_weights* weights, const Run& run) {
  Floats dense(steps * batch * spec.input_size), shares(spec.attention != 0 ? steps * batch : 0);
  Floats plain_y(steps * batch * width(spec)), plain_h_n(static_cast<int64_t>(h_n.size()));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t t = 0; t < length(b); ++t) {
      std::copy_n(x.at(t, b), spec.input_size, dense.data() + (t * batch + b) * spec.input_size);
      if (spec.attention != 0) shares[static_cast<size_t>(t * batch + b)] = *attention.at(t, b);
    }
  gruc_sequence plain = defaults(weights, steps, batch);
  plain.x = dense.data();
  plain.lengths = s.lengths;
  plain.h0 = s.h0;
  plain.y = plain_y.data();
  plain.h_n = plain_h_n.data();
  plain.first_step = s.first_step;
  if (spec.attention != 0) plain.attention = shares.data();
  require_ok(run(plain), "a plain call is right");
  require(s.h_n == nullptr || same(h_n, plain_h_n), "h_n of one answer");
  for (int64_t t = 0; s.y != nullptr && t < steps; ++t)
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t j = 0; j < width(spec); ++j)
        require(same(y.at(t, b)[j], plain_y[static_cast<size_t>((t * batch + b) * width(spec) + j)]),
                "y of one answer");
  require(y.has_gaps_untouched(), "nothing between the rows of y is written");
}

void call_sequences(Bytes& in, const Network& network) {
  Sequence call(in, network);
  gruc_sequence& s = call.s;
  const gruc_weights* weights = network.weights();
  if (in.one_in(4)) s.y = nullptr;
  if (in.one_in(4)) s.h_n = nullptr;
  if (in.one_in(4)) s.first_step = in.one_in(2) ? std::max<int64_t>(in.wild(), 0) : in.up_to(5);
  if (in.one_in(4)) {
    if (!call.spoil(in)) return;
    require_refused(gruc_forward(weights, &s), "a spoiled sequence is refused");
    require(untouched(call.y.memory()) && untouched(call.h_n), "a refused call writes nothing");
    return;
  }
  size_t needed = 0;
  require_ok(gruc_forward_workspace(weights, &s, &needed), "a right sequence has a workspace");
  const int64_t missing = in.one_in(4) ? in.up_to(70) : 0;
  const size_t skew = in.one_in(8) ? 4 : 0;
  const size_t given = needed - std::min<size_t>(needed, static_cast<size_t>(missing));
  Block workspace(given + skew);
  if (!in.one_in(4)) {
    s.workspace = static_cast<char*>(workspace.data()) + skew;
    s.workspace_size = given;
  }
  const gruc_status status = gruc_forward(weights, &s);
  // A call for more threads may do with one thread's workspace.
  const bool is_small = s.workspace != nullptr && given < needed;
  const bool refused = takes_statistics(network.spec()) || (s.workspace != nullptr && skew != 0);
  if (refused || (is_small && s.threads == 1)) {
    require_refused(status, "a wrong call is refused");
    require(untouched(call.y.memory()) && untouched(call.h_n), "a refused call writes nothing");
  } else if (status == GRUC_OK || !is_small) {
    require_ok(status, "a right call succeeds");
    const gruc_weights* others = network.weights(1);
    call.require_plain_answer(others, [&](const gruc_sequence& plain) { return gruc_forward(others, &plain); });
  }
}

}  // namespace gruc::fuzz
