// See back_layer.h.
#include "cpu/back_layer.h"

#include "arena.h"

namespace gruc {
namespace {

// Rows of a chunk, where a single step does not have more: enough for the products that wait (weights' gradients are
// sums over them), while a block's gradients (256 bytes a row) still fit L2 beside a strip of inputs.
constexpr int64_t kChunkRows = 512;

int64_t strips(int64_t columns) { return (columns + kStrip - 1) / kStrip; }

int64_t product(int64_t a, int64_t b) {
  return static_cast<int64_t>(checked_product(static_cast<size_t>(a), static_cast<size_t>(b)));
}

int64_t capacity_of(LayerKind kind, const Spec& spec, int64_t rows, const Chunk& chunk) {
  if (!waits_for_all_steps(kind, spec)) return chunk.capacity;
  return (rows + kChunkRows - 1) / kChunkRows * kChunkRows + chunk.capacity % kChunkRows;
}

UnfusedBackScratch place_unfused(Arena& arena, const Spec& spec, const Chunk& chunk, int64_t batch,
                                 int64_t input_size) {
  const int64_t padded = padded_hidden(spec), blocks = block_count(spec);
  const auto floats = [&](int64_t a, int64_t b) { return arena.take<float>(product(a, b)); };
  UnfusedBackScratch s{};
  s.d_hidden = floats(chunk.capacity, blocks * kTapeRow);
  s.d_input = floats(chunk.capacity, blocks * kTapeRow);
  s.input_mask = floats(batch, input_size);
  for (float** rows : {&s.state_mask, &s.product_h, &s.product_dh, &s.kept, &s.dh}) *rows = floats(batch, padded);
  if (spec.norm == GRUC_NORM_LAYER_STATE) s.dout = floats(chunk.rows, padded);
  s.openness = floats(batch, 1);
  s.dattention = floats(batch, 1);
  for (float** sums : {&s.sums, &s.step_sums, &s.sum_bias}) *sums = floats(blocks, kColumnSums);
  s.state_sums = floats(2, padded);
  return s;
}

BackScratch place(Arena& arena, const Spec& spec, LayerKind kind, int64_t rows, int64_t steps, int64_t batch,
                  int64_t input_size, bool recompute, int size, int rank) {
  const int64_t padded = padded_hidden(spec), blocks = block_count(spec);
  const int64_t padded_input = (input_size + kLanes - 1) / kLanes * kLanes;
  const bool before = spec.reset == GRUC_RESET_BEFORE;
  const Chunk chunk = chunk_of(steps, batch);
  const auto floats = [&](int64_t a, int64_t b) { return arena.take<float>(product(a, b)); };
  BackScratch s{};
  s.h0 = floats(batch, padded);
  if (!recompute && !kind.unfused) s.states = floats(rows, padded);
  s.carry = floats(batch, padded);
  s.dy = floats(batch, padded);
  if (before) s.reset_dh = floats(batch, padded);
  s.d = floats(capacity_of(kind, spec, rows, chunk), blocks * kTapeRow);
  s.x_strips = floats(strips(input_size + 1) * kStrip, chunk.rows);
  s.h_strips = floats(strips(spec.hidden_size + 1) * kStrip, chunk.rows);
  if (before) s.reset_strips = floats(strips(spec.hidden_size) * kStrip, chunk.rows);
  s.dw_ih = floats(input_size + 1, blocks * kPanelRow);
  s.dw_hh = floats(spec.hidden_size + 1, blocks * kPanelRow);
  s.panels.hidden = floats(padded, blocks * kPanelRow);
  s.panels.input = floats(padded_input, blocks * kPanelRow);
  if (kind.unfused) s.unfused = place_unfused(arena, spec, chunk, batch, input_size);
  if (recompute) s.tape = floats(chunk.rows, blocks * kTapeRow);
  for (int member = 0; member < size; ++member) {
    float* dx = floats(kTileRows, std::max(padded_input, padded));
    if (member == rank) s.dx = dx;
    if (!recompute) continue;
    float* tile[5] = {floats(kTileRows, input_size), floats(kTileRows, blocks * kPanelRow), floats(kTileRows, padded),
                      floats(kTileRows, padded), floats(kTileRows, padded)};
    if (member != rank) continue;
    s.x = tile[0];
    s.gates = tile[1];
    s.h = tile[2];
    s.h_next = tile[3];
    s.update = tile[4];
  }
  return s;
}

}  // namespace

// In memory the blocks' gradients of one step should follow one another closely: a power of two between them would map
// them all to the same few sets of a cache. So the distance is a step's rows more than a multiple of kChunkRows.
Chunk chunk_of(int64_t steps, int64_t batch) {
  const int64_t fit = std::max<int64_t>(1, kChunkRows / std::max<int64_t>(1, batch));
  const int64_t rows = batch * std::min(fit, std::max<int64_t>(1, steps));
  return {rows, (rows - batch + kChunkRows - 1) / kChunkRows * kChunkRows + batch};
}

BackLayer::BackLayer(const BackwardJob& job, LayerKind kind, const Team& team, void* scratch)
    : job(job),
      in(job.forward),
      team(team),
      spec(in.weights->spec),
      kernels(*in.weights->kernels),
      padded(padded_hidden(spec)),
      blocks(block_count(spec)),
      inputs(in.layer->input_size),
      before(spec.reset == GRUC_RESET_BEFORE),
      kind(kind),
      chunk(chunk_of(in.steps, in.batch)),
      d_capacity(capacity_of(kind, spec, offset(in.steps), chunk)),
      all{in.lengths, in.order, in.steps, in.reverse, 0, 1, in.batch},
      taped{} {
  Arena arena(scratch);
  s = place(arena, spec, kind, offset(in.steps), in.steps, in.batch, inputs, in.tape.states_only, team.size, team.rank);
  if (in.tape.states_only) s.states = in.tape.rows;
  if (!kind.unfused) return;
  Arena tape(in.tape.rows);
  taped = place_unfused_tape(tape, spec, offset(in.steps), in.steps);
  s.states = taped.states;
}

size_t backward_scratch_size(const Spec& spec, LayerKind kind, int64_t rows, int64_t steps, int64_t batch,
                             int64_t input_size, bool recompute, int size) {
  Arena counter, restoring;
  place(counter, spec, kind, rows, steps, batch, input_size, recompute, size, 0);
  // Outputs are restored from an unfused tape as from one of states alone.
  if (kind.unfused) place(restoring, spec, {false, false}, rows, steps, batch, input_size, true, size, 0);
  return std::max(counter.size(), restoring.size());
}

}  // namespace gruc
