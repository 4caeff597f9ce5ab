/* The C ABI of gru_core, and the one place of its version. C99; nothing but <stddef.h> and <stdint.h>.
 *
 * Shapes: T steps, B batch rows, I input features, H hidden units, L layers, D directions (1 or 2).
 * The rightmost index changes fastest. All numbers are float32 unless a line says otherwise.
 *
 * Every function that can fail returns a gruc_status; gruc_last_error() then has the reason in words. No function
 * prints, aborts or throws. (One thing is out of reach: GNU OpenMP ends the process where the system refuses it a
 * thread, which only a call with threads > 1 can meet.) Weights are immutable and may be shared by any number of
 * threads and states; a state belongs to one thread at a time. The result is the same bits on every ISA, for every
 * thread count, batch split (but in the training of a batch norm) and chunking in time. NaN payloads are not part of
 * that promise. Inputs, states and parameters of magnitude 2^-100 or less count as zero, so that silence stays fast.
 * All of it in the default floating-point environment, which the library never changes; the blend is computed as n + z
 * (h' - n), or h' + z (n - h') for take.
 */
#ifndef GRU_CORE_H
#define GRU_CORE_H

#include <stddef.h>
#include <stdint.h>

#define GRUC_VERSION "0.1.0"
/* Frozen: a function or field of version 1 keeps its name, type and meaning in every later release. Later ones may add
 * functions, values of enums, and fields at the end of the structs that begin with a struct_size; all other structs
 * stay as they are. A library of version 1 takes the structs of every header of version 1 that is not newer than
 * itself. */
#define GRUC_ABI_VERSION 1

#if defined(GRUC_STATIC)
#define GRUC_API
#elif defined(_WIN32)
#if defined(GRUC_BUILDING)
#define GRUC_API __declspec(dllexport)
#else
#define GRUC_API __declspec(dllimport)
#endif
#else
#define GRUC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
#define GRUC_NOEXCEPT noexcept
extern "C" {
#else
#define GRUC_NOEXCEPT
#endif

/* Of a function that keeps the contract of real time, which see; [[clang::nonblocking]] in the spelling that C99 has
 * too. clang 20 and later then check it: callers by -Wfunction-effects, the running program by -fsanitize=realtime. */
#if defined(__has_attribute)
#if __has_attribute(nonblocking)
#define GRUC_NONBLOCKING __attribute__((nonblocking))
#endif
#endif
#ifndef GRUC_NONBLOCKING
#define GRUC_NONBLOCKING
#endif

typedef enum gruc_status {
  GRUC_OK = 0,
  GRUC_INVALID_ARGUMENT = 1, /* a field, pointer or size is wrong; the message names it */
  GRUC_OUT_OF_MEMORY = 2,
  GRUC_UNSUPPORTED = 3, /* this machine or this build cannot do it, as for a forced ISA that the CPU lacks */
  GRUC_INTERNAL = 4     /* a bug in gru_core */
} gruc_status;

/* Direction of every layer. Reverse reads each row from its true end (see lengths) to its start. */
typedef enum gruc_direction { GRUC_FORWARD = 0, GRUC_REVERSE = 1, GRUC_BIDIRECTIONAL = 2 } gruc_direction;

/* Where the reset gate acts (g: the candidate's activation):
 * after:  n = g(W_n x + b_n + r * (U_n h' + c_n))   PyTorch, Keras' default, cuDNN, ONNX linear_before_reset=1
 * before: n = g(W_n x + b_n + U_n (r * h') + c_n)   Cho et al. 2014, ONNX's default, Keras reset_after=False
 * candidate: n = g(r * v_n) with the norm of the sum v, Dreamer's cell (Hafner et al. 2021, arXiv 2010.02193), with
 *         GRUC_NORM_LAYER_SUM alone; z is f(v_z - 1) */
typedef enum gruc_reset { GRUC_RESET_AFTER = 0, GRUC_RESET_BEFORE = 1, GRUC_RESET_CANDIDATE = 2 } gruc_reset;

/* What the update gate does:  keep: h = z h' + (1 - z) n  (PyTorch, Keras, ONNX)   take: h = (1 - z) h' + z n */
typedef enum gruc_update { GRUC_UPDATE_KEEP = 0, GRUC_UPDATE_TAKE = 1 } gruc_update;

/* Which bias vectors exist; a bit mask. Input biases stand outside the reset product, hidden ones inside it. */
typedef enum gruc_bias { GRUC_BIAS_NONE = 0, GRUC_BIAS_INPUT = 1, GRUC_BIAS_HIDDEN = 2, GRUC_BIAS_BOTH = 3 } gruc_bias;

/* Normalisation. With a = W x and u = U h' (u_n = U_n (r * h') where reset is before) and reset after, all but two are
 *   r, z = f(gain_ih * A + gain_hh * B + b_ih + b_hh)
 *   n = g(gain_ih * A + b_ih + r * (gain_hh * B + b_hh))
 * where A and B are a and u less their mean, over their root mean square deviation, (v - mean) / sqrt(var +
 * norm_epsilon), var the biased variance. Biases are added after the norm and need no partner there. The norms differ
 * in what a mean is over:
 *
 * - layer_gates: a row's 2H numbers of r and z, and its H of n, for a and u apart (Kiros' in Ba et al. 2016, arXiv
 *   1607.06450).
 * - layer_products: a row's 3H numbers, for a and u apart (haste, Marian). Not with reset before.
 * - layer_sum: a row's 3H numbers of s = a + u + b_ih: v = gain_ih * S + b_hh, reset candidate (Dreamer).
 * - layer_state: a row's H numbers of the new state: h = gain_state * H + bias_state. a and u as they are
 *   (pytorch-kaldi).
 * - batch_input: each unit of a, over all steps of all rows within their lengths. u as it is: B = u, no gain_hh
 *   (Laurent et al. 2015, arXiv 1510.01378).
 * - batch_step: each unit of a and of u, over the rows that still run at a step, step by step. Steps count from where a
 *   row's walk starts, the end in a reverse direction (Cooijmans et al. 2016, arXiv 1603.09025).
 * - batch_mixed: a as in batch_input, u as in batch_step (the same paper's choice for padded batches).
 *
 * Batch norms have two kinds of weights. For training (spec.norm_steps 0) means are of the call's own batch: its
 * gradients go through them. At a step with fewer than two rows the step before's are taken as constants; a call with
 * one row at the first step (batch_input: one over all steps) is refused. For inference (norm_steps S, 1 or more) they
 * are the population statistics that were given, those of steps beyond the last being its own; what they make of W, U
 * and biases is folded into these when the weights are created wherever that is exact: all of it in batch_input, of the
 * others all but the steps before the last. */
typedef enum gruc_norm {
  GRUC_NORM_NONE = 0,
  GRUC_NORM_LAYER_GATES = 1,
  GRUC_NORM_LAYER_PRODUCTS = 2,
  GRUC_NORM_LAYER_SUM = 3,
  GRUC_NORM_LAYER_STATE = 4,
  GRUC_NORM_BATCH_INPUT = 5,
  GRUC_NORM_BATCH_STEP = 6,
  GRUC_NORM_BATCH_MIXED = 7
} gruc_norm;

/* The activations of the ONNX operator, a: alpha, b: beta. Those that take no alpha or beta ignore them. */
typedef enum gruc_activation_kind {
  GRUC_SIGMOID = 0,
  GRUC_TANH = 1,
  GRUC_RELU = 2,             /* max(x, 0) */
  GRUC_AFFINE = 3,           /* a x + b */
  GRUC_LEAKY_RELU = 4,       /* x < 0 ? a x : x */
  GRUC_THRESHOLDED_RELU = 5, /* x <= a ? 0 : x */
  GRUC_SCALED_TANH = 6,      /* a tanh(b x) */
  GRUC_HARD_SIGMOID = 7,     /* min(max(a x + b, 0), 1) */
  GRUC_ELU = 8,              /* x < 0 ? a (e^x - 1) : x */
  GRUC_SOFTSIGN = 9,         /* x / (1 + |x|) */
  GRUC_SOFTPLUS = 10         /* log(1 + e^x) */
} gruc_activation_kind;

typedef struct gruc_activation {
  int32_t kind; /* gruc_activation_kind */
  float alpha;
  float beta;
} gruc_activation;

/* What a network is. Fill it with gruc_spec_init, then set what differs. */
typedef struct gruc_spec {
  uint32_t struct_size; /* sizeof(gruc_spec) */
  int32_t num_layers;
  int64_t input_size;
  int64_t hidden_size;
  int32_t direction;                  /* gruc_direction */
  int32_t reset;                      /* gruc_reset */
  int32_t update;                     /* gruc_update */
  int32_t bias;                       /* gruc_bias */
  gruc_activation gate_activation[2]; /* of r and z; [0] the forward or only direction, [1] the other */
  gruc_activation activation[2];      /* of the candidate n */
  float clip;                         /* bounds the input of every activation to [-clip, clip]; infinity: no bound */
  int32_t norm;                       /* gruc_norm */
  float norm_epsilon;                 /* inside the root; above 0 */
  int64_t norm_steps;                 /* of batch norms: S, see gruc_norm; else 0 */
  float zoneout;                      /* p, 0 to 1 (Krueger et al. 2017, arXiv 1606.01305): training keeps a unit's old
                                         state with probability p, inference takes p h' + (1 - p) h */
  int32_t attention; /* 1: the update gate is scaled by 1 - a, a number of each step and row (AUGRU, Zhou
                        et al. 2019, arXiv 1809.03672, as oneDNN has it); one layer, no batch norm */
} gruc_spec;

/* The parameters of one layer in one direction, in PyTorch's layout: rows are the gates r, z, n, H rows each.
 * Contiguous, read during the call only. The input of layer 0 has I features, of later layers D*H. */
typedef struct gruc_layer_params {
  const float* weight_ih; /* [3H, I] or [3H, D*H] */
  const float* weight_hh; /* [3H, H] */
  const float* bias_ih;   /* [3H], or NULL where the spec has no input bias */
  const float* bias_hh;   /* [3H], or NULL where the spec has no hidden bias */
  /* Of norms, NULL where the spec has none of the kind: */
  const float* gain_ih;    /* [3H]; all but layer_state */
  const float* gain_hh;    /* [3H]; layer_gates, layer_products, batch_step, batch_mixed */
  const float* gain_state; /* [H]; layer_state */
  const float* bias_state; /* [H]; layer_state */
  const float* mean_ih;    /* population statistics, batch norms with norm_steps S > 0 alone: [S, 3H], but [1, 3H] of */
  const float* var_ih;     /* batch_input and batch_mixed */
  const float* mean_hh;    /* [S, 3H]; batch_step, batch_mixed */
  const float* var_hh;     /* [S, 3H]; variances are biased and 0 or more */
} gruc_layer_params;

typedef struct gruc_model gruc_model;     /* a model file in memory */
typedef struct gruc_weights gruc_weights; /* immutable, packed for one ISA */
typedef struct gruc_state gruc_state;     /* one stream's hidden states and scratch */

/* --- the library --- */

GRUC_API uint32_t gruc_abi_version(void)
    GRUC_NOEXCEPT; /* GRUC_ABI_VERSION of the library that runs; never changes meaning */
GRUC_API const char* gruc_version(void) GRUC_NOEXCEPT; /* "major.minor.patch" of the library that runs */
GRUC_API const char* gruc_last_error(void)
    GRUC_NOEXCEPT; /* of this thread's last failed call; valid until its next call */
GRUC_API const char* gruc_status_name(gruc_status status) GRUC_NOEXCEPT; /* "GRUC_OK" ...; static */

/* The ISAs built into this library, best first, by index from 0; NULL past the end. Static strings. */
GRUC_API const char* gruc_isa_name(int32_t index) GRUC_NOEXCEPT;
GRUC_API int32_t gruc_isa_supported(int32_t index) GRUC_NOEXCEPT; /* 1 if this CPU and its OS can run it, else 0 */
/* The environment must not be changed by another thread during this call or gruc_weights_create.
 * What weights would be packed for now: the environment variable GRUC_ISA where it is set, else the best supported.
 * Fails with GRUC_INVALID_ARGUMENT for an unknown name and GRUC_UNSUPPORTED for one that cannot run here. */
GRUC_API gruc_status gruc_isa_active(const char** name) GRUC_NOEXCEPT;
/* Threads that a call from this thread may use now: its affinity mask, and 1 in a forked child. */
GRUC_API int32_t gruc_max_threads(void) GRUC_NOEXCEPT;

/* --- what a network is --- */

/* The functions that fill a struct are each an inline one that gives its size, so that a newer library never writes
 * beyond an older caller's struct, and an exported one that takes the size; bindings that read no C call the latter. */

/* One forward layer of input_size and hidden_size 1, PyTorch's variant: reset after, update keep, both biases,
 * sigmoid, tanh, no clip. */
GRUC_API void gruc_spec_init_sized(gruc_spec* spec, uint32_t struct_size) GRUC_NOEXCEPT;
static inline void gruc_spec_init(gruc_spec* spec) GRUC_NOEXCEPT { gruc_spec_init_sized(spec, sizeof *spec); }
GRUC_API gruc_status gruc_spec_validate(const gruc_spec* spec) GRUC_NOEXCEPT;

/* --- model files --- */

/* Reads a file that GRU.save of the Python package wrote: safetensors with the spec as JSON in its metadata, see
 * docs/embedding.md. A file that is damaged, or of another format version, is GRUC_INVALID_ARGUMENT and the message
 * says what is wrong where; one that cannot be read likewise. `path` is what fopen takes. */
GRUC_API gruc_status gruc_model_load(const char* path, gruc_model** model) GRUC_NOEXCEPT;
/* The same from the `size` bytes of such a file at `data`, in any alignment; read during the call only. */
GRUC_API gruc_status gruc_model_load_memory(const void* data, size_t size, gruc_model** model) GRUC_NOEXCEPT;
GRUC_API void gruc_model_destroy(gruc_model* model) GRUC_NOEXCEPT; /* NULL is fine */
/* What the file holds, in arrays that live as long as the model; ready for gruc_weights_create, after which the model
 * may go. None of them fails for a model; for NULL they return NULL. */
GRUC_API const gruc_spec* gruc_model_spec(const gruc_model* model) GRUC_NOEXCEPT;
/* [L * D], layer by layer, forward before reverse; `count`, which may be NULL, gets L * D. Call it before the call that
 * takes both: C does not say which of two arguments is computed first. */
GRUC_API const gruc_layer_params* gruc_model_params(const gruc_model* model, size_t* count) GRUC_NOEXCEPT;
/* The initial states that the network has of its own, [L*D, batch, H], with batch 1 for rows of any number; NULL:
 * zeros. Steps and sequences do not use them unless they are given them. */
GRUC_API const float* gruc_model_h0(const gruc_model* model, int64_t* batch) GRUC_NOEXCEPT;
/* The lengths that it has of its own, [batch]; NULL: whole sequences. */
GRUC_API const int64_t* gruc_model_lengths(const gruc_model* model, int64_t* batch) GRUC_NOEXCEPT;

/* --- weights --- */

/* Packs params[L * D], layer by layer, forward before reverse; the arrays may be freed afterwards. */
GRUC_API gruc_status gruc_weights_create(const gruc_spec* spec, const gruc_layer_params* params, size_t params_count,
                                         gruc_weights** weights) GRUC_NOEXCEPT;
/* No state or running call may use them any more. NULL is fine. */
GRUC_API void gruc_weights_destroy(gruc_weights* weights) GRUC_NOEXCEPT;
GRUC_API const char* gruc_weights_isa(const gruc_weights* weights) GRUC_NOEXCEPT; /* static string */
GRUC_API size_t gruc_weights_bytes(const gruc_weights* weights) GRUC_NOEXCEPT;    /* memory that the weights occupy */

/* --- streams: one step or block after another, forward direction only --- */

/* The states of `batch` independent rows, zeroed. The weights must outlive the state; they may be neither for training
 * nor have an attention. */
GRUC_API gruc_status gruc_state_create(const gruc_weights* weights, int64_t batch, gruc_state** state) GRUC_NOEXCEPT;
GRUC_API void gruc_state_destroy(gruc_state* state) GRUC_NOEXCEPT; /* only of gruc_state_create; NULL is fine */
/* The same in memory of the caller: `size` bytes at `memory`, which must be 64-byte aligned and outlive the state.
 * Nothing needs to be destroyed; the state owns nothing else. */
GRUC_API gruc_status gruc_state_size(const gruc_weights* weights, int64_t batch, size_t* size) GRUC_NOEXCEPT;
GRUC_API gruc_status gruc_state_init(const gruc_weights* weights, int64_t batch, void* memory, size_t size,
                                     gruc_state** state) GRUC_NOEXCEPT;
GRUC_API gruc_status gruc_state_reset(gruc_state* state) GRUC_NOEXCEPT; /* zeros, position 0 */
/* The states and the position of `from`, which has the same L, B and H, but need not have the same weights. */
GRUC_API gruc_status gruc_state_copy(gruc_state* state, const gruc_state* from) GRUC_NOEXCEPT;
GRUC_API gruc_status gruc_state_get(const gruc_state* state, float* h) GRUC_NOEXCEPT; /* h [L, B, H] */
/* h [L, B, H], or NULL for zeros. A new sequence begins: the position is 0. */
GRUC_API gruc_status gruc_state_set(gruc_state* state, const float* h) GRUC_NOEXCEPT;
/* Steps since the sequence began. Only a batch norm with statistics of several steps depends on it. */
GRUC_API int64_t gruc_state_position(const gruc_state* state) GRUC_NOEXCEPT;
GRUC_API gruc_status gruc_state_set_position(gruc_state* state, int64_t position) GRUC_NOEXCEPT; /* 0 or more */
/* Steps and blocks may then use at most so many threads, clamped to gruc_max_threads(); a new state has 1. Worth it
 * from some 10^6 multiplications a step (H = 512 for one row). The contract of gruc_step, no locks and no system calls,
 * holds for 1 alone: the threads are OpenMP's. */
GRUC_API gruc_status gruc_state_set_threads(gruc_state* state, int32_t threads) GRUC_NOEXCEPT;

/* The contract of real time, which gruc_step and gruc_process keep: they never allocate, lock, make a system call or
 * throw, and run the same instructions in the same order whatever the numbers are: silence, denormals, infinities and
 * NaN too. It holds for states of one thread, and for calls that are not refused (NULL, a negative count): those write
 * a message. Out of the library's hands: pages that nobody has touched yet, of a state and of 40 KB of stack; a step or
 * two before the first deadline touch them, and bring the weights into the cache. Where the caller has set MXCSR's FTZ
 * and DAZ, as audio hosts do, the contract and the time are the same, and the results: sums that pass below 2^-126 may
 * differ, but no state does, unless such a number decides a rounding. */

/* One step: x [B, I] -> y [B, H], the last layer's new state. y may be x where the sizes allow. */
GRUC_API gruc_status gruc_step(gruc_state* state, const float* x, float* y) GRUC_NOEXCEPT GRUC_NONBLOCKING;
/* T steps: x [T, B, I] -> y [T, B, H]. The same bits as T calls of gruc_step. */
GRUC_API gruc_status gruc_process(gruc_state* state, int64_t steps, const float* x,
                                  float* y) GRUC_NOEXCEPT GRUC_NONBLOCKING;

/* --- whole sequences --- */

/* One call over padded sequences. Fill it with gruc_sequence_init, then set pointers and what differs.
 * y and h_n must not overlap any input. */
typedef struct gruc_sequence {
  uint32_t struct_size;   /* sizeof(gruc_sequence) */
  int32_t threads;        /* at most this many, clamped to gruc_max_threads(); 1 by default. Small work takes
                             fewer, unless GRUC_THREADS=all was set when the weights were made */
  int64_t steps;          /* T, 0 allowed */
  int64_t batch;          /* B, 0 allowed */
  const float* x;         /* element (t, b, i) at x[t * x_step_stride + b * x_batch_stride + i] */
  int64_t x_step_stride;  /* in floats; B*I by default */
  int64_t x_batch_stride; /* in floats; I by default */
  const int64_t* lengths; /* [B], each 0..T, any order; NULL: all T. x beyond a row's length is never read */
  const float* h0;        /* [L*D, B, H]; NULL: zeros */
  float* y;               /* (t, b, d*H + j) as for x; zeros beyond a row's length. NULL: not wanted */
  int64_t y_step_stride;  /* B*D*H by default */
  int64_t y_batch_stride; /* D*H by default */
  float* h_n;      /* [L*D, B, H], the state at each row's true end (h0 where its length is 0); NULL: not wanted */
  void* workspace; /* gruc_forward_workspace bytes, 64-byte aligned; NULL: allocated for the call */
  size_t workspace_size;
  int64_t first_step;     /* steps of these rows in calls before, whose h_n is this one's h0; 0 by default. Only the
                             inference of a batch norm with statistics of several steps depends on it */
  const float* attention; /* a of step t and row b at [t * attention_step_stride + b * attention_batch_stride]; where
                             the spec has an attention, else NULL. Not read beyond a row's length */
  int64_t attention_step_stride;  /* B by default */
  int64_t attention_batch_stride; /* 1 by default */
} gruc_sequence;

/* Defaults for T steps of B rows in the layout [T, B, ...]; all pointers NULL. */
GRUC_API gruc_status gruc_sequence_init_sized(const gruc_weights* weights, int64_t steps, int64_t batch,
                                              gruc_sequence* sequence, uint32_t struct_size) GRUC_NOEXCEPT;
static inline gruc_status gruc_sequence_init(const gruc_weights* weights, int64_t steps, int64_t batch,
                                             gruc_sequence* sequence) GRUC_NOEXCEPT {
  return gruc_sequence_init_sized(weights, steps, batch, sequence, sizeof *sequence);
}
/* Depends on the weights and on steps, batch and threads alone; x and the other arrays may be set later. */
GRUC_API gruc_status gruc_forward_workspace(const gruc_weights* weights, const gruc_sequence* sequence,
                                            size_t* size) GRUC_NOEXCEPT;
GRUC_API gruc_status gruc_forward(const gruc_weights* weights, const gruc_sequence* sequence) GRUC_NOEXCEPT;

/* --- training: the same sequences with a tape, and their gradients --- */

/* How a sequence is taped. Fill it with gruc_training_init, then set what differs. */
typedef struct gruc_training {
  uint32_t struct_size; /* sizeof(gruc_training) */
  int32_t recompute; /* 0: the tape has 4 H floats for each step that a row, layer and direction runs. 1: H floats, the
                        states alone; gruc_backward computes the rest again, to the same bits */
  float dropout;     /* 0 to 1: of the outputs of every layer but the last so many are zeroed and the others scaled by
                        1 / (1 - dropout), at random */
  uint64_t seed;     /* the masks depend on it, on the layer and on an output's number (t * B + b) * D*H + j in the
                        batch alone: Philox4x32-10 (Salmon et al. 2011) */
  /* Further masks from the same seed, 0 to 1 each, the kept numbers scaled by 1 / (1 - p). Word e % 4 of the counter
   * (e / 4 low, e / 4 high, stream, 0) decides on element e: it is dropped where the word is below p * 2^32. `stream`
   * is the layer for dropout, and for these (kind << 28) | (layer * D + direction):
   *
   * - kind 1, zoneout (the spec's p; nothing is scaled): e = (t * B + b) * H + j.
   * - kind 2, drop_connect: of the weights U, once for the call (Wan et al. 2013; Merity et al. 2018, arXiv
   *   1708.02182): e = ((j / 16 * H + k) * 3 + gate) * 16 + j % 16 for the weight of unit j, gate r, z, n = 0, 1, 2
   *   and input k.
   * - kind 3, input_dropout: of a layer's inputs, one mask for all steps (Gal and Ghahramani 2016, arXiv 1512.05287):
   *   e = b * I + i, of the layer's I.
   * - kind 4, state_dropout: of h' where it enters a product, but not the blend, one mask for all steps:
   *   e = b * H + j. */
  float drop_connect;
  float input_dropout;
  float state_dropout;
} gruc_training;

/* No recomputation, no dropout, seed 0. */
GRUC_API void gruc_training_init_sized(gruc_training* training, uint32_t struct_size) GRUC_NOEXCEPT;
static inline void gruc_training_init(gruc_training* training) GRUC_NOEXCEPT {
  gruc_training_init_sized(training, sizeof *training);
}
/* Bytes of the tape of a call; H counts rounded up to 16. A network with a norm, zoneout or attention, or a call with
 * input_dropout or state_dropout, takes some 7 H floats instead of 4, and knows no recomputation. Depends on the
 * weights' spec, `training` and the sequence's steps, batch and lengths. */
GRUC_API gruc_status gruc_tape_size(const gruc_weights* weights, const gruc_sequence* sequence,
                                    const gruc_training* training, size_t* size) GRUC_NOEXCEPT;
/* gruc_forward, the same bits where nothing is random and no batch has statistics, and a tape for gruc_backward:
 * `tape_size` bytes at `tape`, 64-byte aligned. The sequence's workspace is not used. */
GRUC_API gruc_status gruc_forward_train(const gruc_weights* weights, const gruc_sequence* sequence,
                                        const gruc_training* training, void* tape, size_t tape_size) GRUC_NOEXCEPT;

/* The statistics that a call with a batch norm took from its batch, of layer * D + direction = `index`: biased
 * variances, laid out as in gruc_layer_params with S = T. For running averages: (1 - m) * old + m * new, m = 0.1 by
 * custom. A step with fewer than two rows has those of the step before, which should not be counted twice; a
 * call without a row has zeros, which should not be counted. Any pointer may be NULL. */
GRUC_API gruc_status gruc_batch_statistics(const gruc_weights* weights, const gruc_sequence* sequence,
                                           const gruc_training* training, const void* tape, size_t tape_size,
                                           int64_t index, float* mean_ih, float* var_ih, float* mean_hh,
                                           float* var_hh) GRUC_NOEXCEPT;

/* Where the gradients of one layer in one direction go: shapes as in gruc_layer_params. NULL: not wanted. */
typedef struct gruc_layer_gradients {
  float* weight_ih;
  float* weight_hh;
  float* bias_ih;
  float* bias_hh;
  float* gain_ih;
  float* gain_hh;
  float* gain_state;
  float* bias_state;
} gruc_layer_gradients;

/* What comes into a backward pass, and what it adds its gradients to. Fill it with gruc_gradients_init, then set
 * pointers and what differs. Every gradient is added to what its array holds, and none is computed that nobody wants.
 */
typedef struct gruc_gradients {
  uint32_t struct_size;   /* sizeof(gruc_gradients) */
  const float* dy;        /* of y: (t, b, d*H + j) at dy[t * dy_step_stride + b * dy_batch_stride + d*H + j]; never read
                             beyond a row's length. NULL: zeros */
  int64_t dy_step_stride; /* in floats; B*D*H by default */
  int64_t dy_batch_stride; /* D*H by default */
  const float* dh_n;       /* of h_n, [L*D, B, H]; NULL: zeros */
  float* dx;               /* of x: (t, b, i) as in the sequence, untouched beyond a row's length; NULL: not wanted */
  int64_t dx_step_stride;  /* B*I by default */
  int64_t dx_batch_stride; /* I by default */
  float* dh0;              /* of h0, [L*D, B, H], also where the sequence has none; NULL: not wanted */
  const gruc_layer_gradients* params; /* [L*D], layer by layer, forward before reverse; NULL: none wanted */
  void* workspace;                    /* gruc_backward_workspace bytes, 64-byte aligned; NULL: allocated for the call */
  size_t workspace_size;
  float* dattention;               /* of the sequence's attention, untouched beyond a row's length; NULL: not wanted */
  int64_t dattention_step_stride;  /* B by default */
  int64_t dattention_batch_stride; /* 1 by default */
} gruc_gradients;

/* Defaults for T steps of B rows in the layout [T, B, ...]; all pointers NULL. */
GRUC_API gruc_status gruc_gradients_init_sized(const gruc_weights* weights, int64_t steps, int64_t batch,
                                               gruc_gradients* gradients, uint32_t struct_size) GRUC_NOEXCEPT;
static inline gruc_status gruc_gradients_init(const gruc_weights* weights, int64_t steps, int64_t batch,
                                              gruc_gradients* gradients) GRUC_NOEXCEPT {
  return gruc_gradients_init_sized(weights, steps, batch, gradients, sizeof *gradients);
}
/* Depends on the weights, `training`, the sequence's steps, batch, lengths and threads, and on which gradients are
 * wanted. */
GRUC_API gruc_status gruc_backward_workspace(const gruc_weights* weights, const gruc_sequence* sequence,
                                             const gruc_training* training, const gruc_gradients* gradients,
                                             size_t* size) GRUC_NOEXCEPT;
/* The gradients of a gruc_forward_train by the same weights, whose sequence (steps, batch, x, h0, lengths, attention)
 * and `training` must be the same too; y, h_n and workspace of it are not used. The tape is read only and may be used
 * again. No output may overlap an input or another output. The same bits for every ISA and thread count; rows and steps
 * are summed in a fixed order, the last step first, and dx takes the forward direction's sum before the other's.
 * Gradients of states (dy and what later steps add to it) and of gates of magnitude 2^-100 or less count as zero. An
 * activation's derivative where it has a kink: 0 for relu and thresholded_relu, alpha for leaky_relu and elu, 0 at the
 * bounds of hard_sigmoid, and 1 at the bounds of clip, as PyTorch's relu, leaky_relu, elu, hardsigmoid and clamp have
 * it. */
GRUC_API gruc_status gruc_backward(const gruc_weights* weights, const gruc_sequence* sequence,
                                   const gruc_training* training, const void* tape, size_t tape_size,
                                   const gruc_gradients* gradients) GRUC_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif /* GRU_CORE_H */
