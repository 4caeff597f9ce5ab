// See calls.h: tapes, gruc_forward_train, gruc_batch_statistics and gruc_backward. The same gradients must come out in
// whatever layout, for two ISAs and for any count of threads.
#include <algorithm>
#include <cmath>

#include "calls.h"

namespace gruc::fuzz {
namespace {

bool is_probability(float p) { return p >= 0.0f && p <= 1.0f; }

gruc_training draw_training(Bytes& in) {
  gruc_training t;
  gruc_training_init(&t);
  const auto draw = [&](float& p) {
    if (in.one_in(4)) p = in.one_in(6) ? in.wild_float() : static_cast<float>(in.byte()) / 255.0f;
  };
  t.seed = in.byte();
  t.recompute = in.one_in(4) ? 1 : 0;
  draw(t.dropout);
  draw(t.drop_connect);
  draw(t.input_dropout);
  draw(t.state_dropout);
  if (in.one_in(16)) t.recompute = static_cast<int32_t>(in.wild());
  if (in.one_in(16)) t.struct_size = static_cast<uint32_t>(in.wild());
  return t;
}

bool is_sound(const gruc_spec& spec, const gruc_training& t) {
  if (t.struct_size != sizeof t || t.recompute < 0 || t.recompute > 1) return false;
  for (const float p : {t.dropout, t.drop_connect, t.input_dropout, t.state_dropout})
    if (!is_probability(p)) return false;
  // A probability that rounds to 0 of 2^32 is none.
  const auto drops = [](float p) { return std::llrint(std::ldexp(double{p}, 32)) > 0; };
  const bool unfused = spec.norm != GRUC_NORM_NONE || spec.zoneout > 0.0f || spec.attention != 0 ||
                       drops(t.input_dropout) || drops(t.state_dropout);
  return t.recompute == 0 || !unfused;
}

using Gradient = float* gruc_layer_gradients::*;
constexpr Gradient kGradients[] = {&gruc_layer_gradients::weight_ih,  &gruc_layer_gradients::weight_hh,
                                   &gruc_layer_gradients::bias_ih,    &gruc_layer_gradients::bias_hh,
                                   &gruc_layer_gradients::gain_ih,    &gruc_layer_gradients::gain_hh,
                                   &gruc_layer_gradients::gain_state, &gruc_layer_gradients::bias_state};

// Where one backward pass puts its gradients. Those are wanted that the bits of `wanted` say.
struct Outputs {
  Outputs(Bytes& in, const Sequence& call, const gruc_weights* weights, uint64_t wanted)
      : dx(in, call.steps, call.batch, call.spec.input_size),
        dattention(in, call.steps, call.spec.attention != 0 ? call.batch : 0, 1),
        dh0(static_cast<int64_t>(call.h_n.size())),
        layers(static_cast<size_t>(layer_count(call.spec))) {
    require_ok(gruc_gradients_init(weights, call.steps, call.batch, &g), "gradients' defaults");
    int bit = 4;
    for (int64_t i = 0; i < layer_count(call.spec); ++i) {
      const auto sizes = array_sizes(call.spec, i / directions(call.spec));
      for (size_t a = 0; a < 8; ++a, bit = bit % 60 + 1) {
        if (sizes[a] == 0) continue;
        arrays.emplace_back(sizes[a]);
        is_wanted.push_back((wanted & 4) != 0 && (wanted >> bit & 1) != 0);
        if (is_wanted.back()) layers[static_cast<size_t>(i)].*kGradients[a] = arrays.back().data();
      }
    }
    dx.forbid(call.lengths);
    g.dx = (wanted & 1) != 0 ? dx.data() : nullptr;
    g.dx_step_stride = dx.step_stride();
    g.dx_batch_stride = dx.batch_stride();
    g.dh0 = (wanted & 2) != 0 ? dh0.data() : nullptr;
    g.params = (wanted & 4) != 0 ? layers.data() : nullptr;
    if (call.spec.attention == 0) return;
    dattention.forbid(call.lengths);
    g.dattention = (wanted & 8) != 0 ? dattention.data() : nullptr;
    g.dattention_step_stride = dattention.step_stride();
    g.dattention_batch_stride = dattention.batch_stride();
  }

  // What is wanted is as where all is wanted, and the rest is as it was.
  void require_part_of(Outputs& all, const Sequence& call) {
    for (size_t i = 0; i < arrays.size(); ++i)
      require(is_wanted[i] ? same(arrays[i], all.arrays[i]) : untouched(arrays[i]), "parameters' gradients");
    require(g.dh0 != nullptr ? same(dh0, all.dh0) : untouched(dh0), "dh0 of one answer");
    for (int64_t b = 0; b < call.batch; ++b)
      for (int64_t t = 0; t < call.length(b); ++t) {
        for (int64_t i = 0; i < dx.columns(); ++i)
          require(same(dx.at(t, b)[i], g.dx != nullptr ? all.dx.at(t, b)[i] : 7.0f), "dx of one answer");
        if (call.spec.attention != 0)
          require(same(*dattention.at(t, b), g.dattention != nullptr ? *all.dattention.at(t, b) : 7.0f),
                  "dattention of one answer");
      }
  }
  bool is_untouched() const {
    return std::all_of(arrays.begin(), arrays.end(), [](const Floats& a) { return untouched(a); }) && untouched(dh0);
  }

  Frames dx, dattention;
  Floats dh0;
  std::vector<Floats> arrays;
  std::vector<bool> is_wanted;
  std::vector<gruc_layer_gradients> layers;
  gruc_gradients g;
};

// What comes in, the same for all.
struct Incoming {
  Incoming(Bytes& in, const Sequence& call)
      : dy(in, call.steps, call.batch, width(call.spec)), dh_n(static_cast<int64_t>(call.h_n.size()), in) {
    dy.draw(in);
    dy.forbid(call.lengths);
    is_wanted = !in.one_in(4);
  }
  void add_to(gruc_gradients& g) {
    g.dy = is_wanted ? dy.data() : nullptr;
    g.dy_step_stride = dy.step_stride();
    g.dy_batch_stride = dy.batch_stride();
    g.dh_n = dh_n.data();
  }
  Frames dy;
  Floats dh_n;
  bool is_wanted;
};

void run_backward(Bytes& in, Sequence& call, const gruc_weights* const (&weights)[2], const gruc_training& t,
                  Block (&tapes)[2]) {
  Incoming incoming(in, call);
  const uint64_t wanted = in.one_in(2) ? ~uint64_t{0} : in.word();
  Outputs first(in, call, weights[0], wanted), second(in, call, weights[1], ~uint64_t{0});
  size_t needed = 0;
  incoming.add_to(first.g);
  incoming.add_to(second.g);
  require_ok(gruc_backward_workspace(weights[0], &call.s, &t, &first.g, &needed), "a right backward has a workspace");
  const size_t missing = in.one_in(4) ? std::min<size_t>(needed, in.byte()) : 0;
  Block workspace(needed - missing);
  first.g.workspace = workspace.data();
  first.g.workspace_size = workspace.size();
  gruc_status status = gruc_backward(weights[0], &call.s, &t, tapes[0].data(), tapes[0].size(), &first.g);
  if (missing > 0 && status != GRUC_OK) {  // a call for more threads may do with less
    require_refused(status, "too small a workspace is refused");
    require(first.is_untouched(), "a refused backward writes nothing");
    first.g.workspace = nullptr;
    status = gruc_backward(weights[0], &call.s, &t, tapes[0].data(), tapes[0].size(), &first.g);
  } else {
    require(missing == 0 || call.s.threads > 1, "a workspace that is too small is refused");
  }
  require_ok(status, "a right backward succeeds");
  call.s.threads = 1;
  require_ok(gruc_backward(weights[1], &call.s, &t, tapes[1].data(), tapes[1].size(), &second.g),
             "a right backward succeeds on each ISA");
  first.require_part_of(second, call);
}

void read_statistics(Bytes& in, Sequence& call, const gruc_weights* weights, const gruc_training& t, Block& tape) {
  const int64_t rows = 3 * call.spec.hidden_size, index = in.one_in(4) ? in.wild() : in.up_to(5);
  const bool by_step = call.spec.norm == GRUC_NORM_BATCH_STEP, hidden = call.spec.norm != GRUC_NORM_BATCH_INPUT;
  Floats of_input[2] = {Floats((by_step ? call.steps : 1) * rows), Floats((by_step ? call.steps : 1) * rows)};
  Floats of_hidden[2] = {Floats((hidden ? call.steps : 0) * rows), Floats((hidden ? call.steps : 0) * rows)};
  const gruc_status status =
      gruc_batch_statistics(weights, &call.s, &t, tape.data(), tape.size(), index, of_input[0].data(),
                            in.one_in(4) ? nullptr : of_input[1].data(), of_hidden[0].data(), of_hidden[1].data());
  const bool is_right = takes_statistics(call.spec) && index >= 0 && index < layer_count(call.spec);
  require(status == (is_right ? GRUC_OK : GRUC_INVALID_ARGUMENT), "statistics of a layer that is");
}

// Gradients that the spec has none of, and a workspace askew.
void require_right_gradients(Bytes& in, Sequence& call, const gruc_weights* weights, const gruc_training& t,
                             Block& tape) {
  Outputs outputs(in, call, weights, ~uint64_t{0});
  Floats none(1);
  size_t needed = 0;
  require_ok(gruc_backward_workspace(weights, &call.s, &t, &outputs.g, &needed), "a right backward has a workspace");
  Block workspace(needed + 4);
  const auto sizes = array_sizes(call.spec, 0);
  const auto a = static_cast<size_t>(in.up_to(9));
  if (a < 8) {
    if (sizes[a] != 0) return;
    outputs.layers[in.byte() % outputs.layers.size()].*kGradients[a] = none.data();
  } else if (a == 8) {
    if (call.spec.attention != 0) return;
    outputs.g.dattention = none.data();
  } else {
    outputs.g.workspace = static_cast<char*>(workspace.data()) + 4;
    outputs.g.workspace_size = needed;
  }
  require_refused(gruc_backward(weights, &call.s, &t, tape.data(), tape.size(), &outputs.g), "wrong gradients");
  require(outputs.is_untouched() && untouched(none), "a refused backward writes nothing");
}

// A tape of another call, or none, opens for nobody.
void require_closed(Bytes& in, Sequence& call, const gruc_weights* weights, gruc_training t, Block& tape) {
  gruc_sequence s = call.s;
  Outputs outputs(in, call, weights, ~uint64_t{0});
  Block blank(tape.size());
  require_refused(gruc_backward(weights, &s, &t, blank.data(), blank.size(), &outputs.g), "no tape");
  if (tape.size() > 0) {
    require_refused(gruc_backward(weights, &s, &t, tape.data(), tape.size() - 1, &outputs.g), "a tape cut off");
    require_refused(gruc_backward(weights, &s, &t, static_cast<char*>(tape.data()) + 4, tape.size() - 4, &outputs.g),
                    "a tape askew");
  }
  if (in.one_in(2))
    t.seed += 1;
  else
    s.batch += s.batch > 0 ? -1 : 1;
  require_refused(gruc_backward(weights, &s, &t, tape.data(), tape.size(), &outputs.g), "a tape of another call");
  require(outputs.is_untouched(), "a refused backward writes nothing");
}

void require_no_training(const gruc_weights* weights, const Sequence& call, const gruc_training& t) {
  Block memory(1 << 16);
  require_refused(gruc_forward_train(weights, &call.s, &t, memory.data(), memory.size()), "this cannot train");
  require(untouched(call.y.memory()) && untouched(call.h_n), "a refused call writes nothing");
}

}  // namespace

void call_training(Bytes& in, const Network& network) {
  Sequence call(in, network);
  const gruc_training t = draw_training(in);
  const gruc_weights* const weights[2] = {network.weights(0), network.weights(1)};
  if (call.spec.norm_steps > 0 || !is_sound(call.spec, t)) return require_no_training(weights[0], call, t);
  size_t size = 0;
  require_ok(gruc_tape_size(weights[0], &call.s, &t, &size), "a right call has a tape");
  Block tapes[2] = {Block(size), Block(size)};
  const auto train = [&](int which, const gruc_sequence& s) {
    return gruc_forward_train(weights[which], &s, &t, tapes[which].data(), size);
  };
  const bool is_spoiled = in.one_in(8);
  if (is_spoiled && !call.spoil(in)) return;
  if (is_spoiled || !call.has_rows_for_statistics()) {
    require_refused(train(0, call.s), "a wrong call is refused");
    require(untouched(call.y.memory()) && untouched(call.h_n), "a refused call writes nothing");
    return;
  }
  require_ok(train(0, call.s), "a right training call succeeds");
  call.require_plain_answer(weights[1], [&](const gruc_sequence& plain) { return train(1, plain); });
  if (in.one_in(4)) require_closed(in, call, weights[0], t, tapes[0]);
  if (in.one_in(4)) require_right_gradients(in, call, weights[0], t, tapes[0]);
  read_statistics(in, call, weights[0], t, tapes[0]);
  run_backward(in, call, weights, t, tapes);
}

}  // namespace gruc::fuzz
