// What one unit of one row does at a step, forward and backward, once its product is there: activations, gates, blend,
// and where their numbers stand. The equations are those of Cho et al. 2014 (arXiv 1406.1078); gru_core.h names the
// variants. Must not include products.
#pragma once
#include "cuda/args.h"
#include "cuda/device.h"

namespace gruc::cuda {

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ inline float activate(const gruc_activation& f, float x) {
  const float a = f.alpha, b = f.beta;
  switch (f.kind) {
    case GRUC_SIGMOID:
      return sigmoid(x);
    case GRUC_TANH:
      return tanhf(x);
    case GRUC_RELU:
      return x > 0.0f || x != x ? x : 0.0f;
    case GRUC_AFFINE:
      return fmaf(a, x, b);
    case GRUC_LEAKY_RELU:
      return x < 0.0f ? a * x : x;
    case GRUC_THRESHOLDED_RELU:
      return x > a || x != x ? x : 0.0f;
    case GRUC_SCALED_TANH:
      return a * tanhf(b * x);
    case GRUC_HARD_SIGMOID: {
      const float y = fmaf(a, x, b);
      return y < 0.0f ? 0.0f : (y > 1.0f ? 1.0f : y);
    }
    case GRUC_ELU:
      return x < 0.0f ? a * expm1f(x) : x;
    case GRUC_SOFTSIGN:
      return fabsf(x) > 3.0e38f ? copysignf(1.0f, x) : x / (1.0f + fabsf(x));
    case GRUC_SOFTPLUS:
      return (x > 0.0f || x != x ? x : 0.0f) + log1pf(expf(-fabsf(x)));
  }
  return x;
}

__device__ __forceinline__ float clipped(const Cell& cell, float x) {
  return x < -cell.clip ? -cell.clip : (x > cell.clip ? cell.clip : x);  // NaN passes
}
__device__ __forceinline__ float gate_of(const Cell& cell, float x) {
  return cell.plain ? sigmoid(x) : activate(cell.gate, clipped(cell, x));
}
__device__ __forceinline__ float candidate_of(const Cell& cell, float x) {
  return cell.plain ? tanhf(x) : activate(cell.candidate, clipped(cell, x));
}

// To the nearest, ties to even.
__device__ __forceinline__ uint16_t bfloat16_of(float x) {
  const uint32_t bits = bits_of_float(x);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ __forceinline__ Row row_at(const Frames& f, int i) {
  return f.rows == nullptr ? Row{i, f.steps} : f.rows[i];
}
__device__ __forceinline__ int time_at(const Frames& f, const Row& row, int step) {
  return f.reverse ? row.length - 1 - step : step;
}
__device__ __forceinline__ int64_t frame_at(const Frames& f, const Row& row, int step) {
  return time_at(f, row, step) * f.step + row.batch * f.batch_stride;
}
// The number of rows that run at a step: those of the prefix `running`, which is at most too long (or too short).
__device__ __forceinline__ int fewer_rows(const Frames& f, int running, int step) {
  if (f.rows != nullptr)
    while (running > 0 && f.rows[running - 1].length <= step) --running;
  return running;
}
__device__ __forceinline__ int more_rows(const Frames& f, int running, int step) {
  if (f.rows == nullptr) return f.batch;
  while (running < f.batch && f.rows[running].length > step) ++running;
  return running;
}

// A unit of a row at a step.
class ForwardUnit {
 public:
  // Loads what waits for no product; `row` and `unit` must exist.
  __device__ __forceinline__ ForwardUnit(const ForwardArgs& p, int row, int unit, int step)
      : p_(p), row_(row), unit_(unit), step_(step), of_(row_at(p.frames, row)) {
    frame_ = frame_at(p.frames, of_, step);
    const float* x = p.gates_x + frame_ * kGates * p.hidden + unit;
    for (int gate = 0; gate < kGates; ++gate)
      x_[gate] = x[static_cast<int64_t>(gate) * p.hidden] + p.input_bias[gate * p.hidden + unit];
    h_ = load_cg(p.states + state_at(step));
  }

  // From U h', reset after.
  __device__ __forceinline__ void after(float r_sum, float z_sum, float n_sum) const {
    const float r = gate_of(p_.cell, x_[0] + r_sum), z = gate_of(p_.cell, x_[1] + z_sum);
    const float q = n_sum + p_.hidden_bias[unit_];
    const float n = candidate_of(p_.cell, fmaf(r, q, x_[2]));
    if (p_.tape_gates != nullptr) {
      float* tape = slots();
      tape[0] = q;
      tape[p_.depth] = r;
      tape[2 * p_.depth] = z;
      tape[3 * p_.depth] = n;
    }
    finish(z, n);
  }

  // Reset before: from U_r h' and U_z h', then from U_n (r h').
  __device__ __forceinline__ void before_gates(float r_sum, float z_sum) const {
    const float r = gate_of(p_.cell, x_[0] + r_sum), z = gate_of(p_.cell, x_[1] + z_sum), reset = r * h_;
    p_.reset_states[own()] = reset;
    p_.updates[own()] = z;
    round(reset);
    if (p_.tape_gates != nullptr) {
      float* tape = slots();
      tape[0] = reset;
      tape[p_.depth] = r;
      tape[2 * p_.depth] = z;
    }
  }
  __device__ __forceinline__ void before_candidate(float n_sum) const {
    const float n = candidate_of(p_.cell, x_[2] + n_sum);
    if (p_.tape_gates != nullptr) slots()[3 * p_.depth] = n;
    finish(load_cg(p_.updates + own()), n);
  }

 private:
  __device__ __forceinline__ int64_t own() const { return static_cast<int64_t>(row_) * p_.depth + unit_; }
  __device__ __forceinline__ int64_t state_at(int step) const {
    return static_cast<int64_t>(step & 1) * p_.frames.batch * p_.depth + own();
  }
  __device__ __forceinline__ float* slots() const { return p_.tape_gates + frame_ * kSlots * p_.depth + unit_; }
  __device__ __forceinline__ void round(float value) const {
    if (p_.rounded != nullptr) static_cast<uint16_t*>(p_.rounded)[own()] = bfloat16_of(value);
  }

  __device__ __forceinline__ void finish(float z, float n) const {
    const float h = p_.cell.take ? fmaf(z, n - h_, h_) : fmaf(z, h_ - n, n);
    p_.states[state_at(step_ + 1)] = h;
    round(h);
    if (p_.y != nullptr) p_.y[time_at(p_.frames, of_, step_) * p_.y_step + of_.batch * p_.y_batch + unit_] = h;
    if (step_ + 1 < of_.length) {
      if (p_.tape_states != nullptr) p_.tape_states[frame_at(p_.frames, of_, step_ + 1) * p_.depth + unit_] = h;
    } else if (p_.h_n != nullptr) {
      p_.h_n[static_cast<int64_t>(of_.batch) * p_.hidden + unit_] = h;
    }
  }

  const ForwardArgs& p_;
  int row_, unit_, step_;
  Row of_;
  int64_t frame_;
  float x_[kGates], h_;
};

// The gradients of a unit of a row at a step, of sigmoid and tanh. keep: dn = dh (1 - z), dz = dh (h' - n), and dh z
// goes to dh'; take with z and 1 - z, h' and n in each other's place.
class BackUnit {
 public:
  __device__ __forceinline__ BackUnit(const BackArgs& p, int row, int unit, int step)
      : p_(p), row_(row), unit_(unit), step_(step), of_(row_at(p.frames, row)) {
    if (step < 0) return;
    frame_ = frame_at(p.frames, of_, step);
    const float* tape = p.tape_gates + frame_ * kSlots * p.depth + unit;
    q_ = tape[0];
    r_ = tape[p.depth];
    z_ = tape[2 * p.depth];
    n_ = tape[3 * p.depth];
    h_ = p.tape_states[frame_ * p.depth + unit];
  }

  // `pulled`: U^T times the gradients of step + 1, read only where the row runs at that.
  __device__ __forceinline__ float dh(float pulled) const {
    const bool ends = of_.length == step_ + 1;
    const int64_t state = static_cast<int64_t>(of_.batch) * p_.hidden + unit_;
    float dh = ends ? (p_.dh_n == nullptr ? 0.0f : p_.dh_n[state]) : p_.carry[own()] + pulled;
    if (step_ >= 0 && p_.dy != nullptr)
      dh += p_.dy[time_at(p_.frames, of_, step_) * p_.dy_step + of_.batch * p_.dy_batch + unit_];
    return dh;
  }

  // q = U_n h' + c_n:  dq = dn r,  dr = dn q
  __device__ __forceinline__ void after(float dh) const {
    const float dn = blend(dh);
    put(0, dn * r_);
    put(1, dn * q_ * (r_ * (1.0f - r_)));
  }
  // The candidate is of U_n (r h') + c_n, then with s = U_n^T dn:  dr = s h',  dh' += s r
  __device__ __forceinline__ void before_candidate(float dh) const { put(0, blend(dh)); }
  __device__ __forceinline__ void before_gates(float s) const {
    put(1, s * h_ * (r_ * (1.0f - r_)));
    p_.carry[own()] = fmaf(s, r_, p_.carry[own()]);
  }
  // After step 0.
  __device__ __forceinline__ void to_h0(float dh) const {
    if (p_.dh0 != nullptr) p_.dh0[static_cast<int64_t>(of_.batch) * p_.hidden + unit_] += dh;
  }

 private:
  __device__ __forceinline__ int64_t own() const { return static_cast<int64_t>(row_) * p_.depth + unit_; }
  __device__ __forceinline__ void put(int slot, float value) const {
    p_.gradients[(frame_ * kSlots + slot) * p_.depth + unit_] = value;
    p_.exchange[((static_cast<int64_t>(step_ & 1) * p_.frames.batch + row_) * kGates + slot) * p_.depth + unit_] =
        value;
  }
  __device__ __forceinline__ float blend(float dh) const {
    const float other = 1.0f - z_;
    const float dn = dh * (p_.take ? z_ : other) * (1.0f - n_ * n_);
    put(2, dh * (p_.take ? n_ - h_ : h_ - n_) * (z_ * other));
    p_.carry[own()] = dh * (p_.take ? other : z_);
    p_.gradients[(frame_ * kSlots + 3) * p_.depth + unit_] = dn;
    return dn;
  }

  const BackArgs& p_;
  int row_, unit_, step_;
  Row of_;
  int64_t frame_ = 0;
  float q_ = 0.0f, r_ = 0.0f, z_ = 0.0f, n_ = 0.0f, h_ = 0.0f;
};

}  // namespace gruc::cuda
