/* The C ABI of gru_core_cuda: the same networks on an NVIDIA GPU. Only in builds with -DGRUC_CUDA=ON; link
 * gru_core_cuda, and gru_core, which fills gruc_spec and gruc_training. C99; nothing but gru_core.h.
 *
 * Calls are those of gru_core.h with arrays in device memory: the structs, their fields and the meaning of every
 * shape and stride are the same, but for what is said here. A call enqueues its work on the caller's stream and
 * returns; it does not wait for the device, unless the launch queue is full. Arrays must stay as they are until the
 * stream has come so far. `lengths` and the structs themselves are in host memory and read before the call returns.
 *
 * Results are not the same bits as the CPU's, nor the same for every batch: they are compared by tolerance, 1e-5
 * relative in float32. Norms, zoneout, attention, the training of other cells than sigmoid and tanh without a clip,
 * recompute, drop_connect, input_dropout and state_dropout are refused with GRUC_UNSUPPORTED.
 */
#ifndef GRU_CORE_CUDA_H
#define GRU_CORE_CUDA_H

#include "gru_core/gru_core.h"

#if defined(GRUC_CUDA_STATIC) || !defined(_WIN32)
#define GRUC_CUDA_API GRUC_API
#elif defined(GRUC_CUDA_BUILDING)
#define GRUC_CUDA_API __declspec(dllexport)
#else
#define GRUC_CUDA_API __declspec(dllimport)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What products with U and W are computed from. Sums and everything else are float32. */
typedef enum gruc_cuda_precision {
  GRUC_CUDA_FLOAT32 = 0,
  GRUC_CUDA_BFLOAT16 = 1 /* weights rounded to bfloat16, and inputs where they meet W; of large batches the states too
                            where they meet U; no training */
} gruc_cuda_precision;

typedef struct gruc_cuda_weights gruc_cuda_weights; /* a network's weights on one device */

/* Of this thread's last failed call of this header; valid until its next call. */
GRUC_CUDA_API const char* gruc_cuda_last_error(void) GRUC_NOEXCEPT;

/* How many devices there are. GRUC_UNSUPPORTED, and 0, where there is no driver, one older than this library asks, or
 * no device; the message says which. */
GRUC_CUDA_API gruc_status gruc_cuda_device_count(int32_t* count) GRUC_NOEXCEPT;

/* `precision`: a gruc_cuda_precision. params[L * D] as for gruc_weights_create; its arrays may be in host or device
 * memory. They are read by work on `stream` (a cudaStream_t; NULL: the default stream) and may be freed when the stream
 * has come so far; those of pageable host memory, as from malloc, when the call has returned. `device` is a number
 * below gruc_cuda_device_count.
 */
GRUC_CUDA_API gruc_status gruc_cuda_weights_create(const gruc_spec* spec, const gruc_layer_params* params,
                                                   size_t params_count, int32_t precision, int32_t device, void* stream,
                                                   gruc_cuda_weights** weights) GRUC_NOEXCEPT;
/* New values in the place of the old, for what is enqueued on `stream` after it. */
GRUC_CUDA_API gruc_status gruc_cuda_weights_update(gruc_cuda_weights* weights, const gruc_layer_params* params,
                                                   size_t params_count, void* stream) GRUC_NOEXCEPT;
/* Waits until the device has done with them. NULL is fine. */
GRUC_CUDA_API void gruc_cuda_weights_destroy(gruc_cuda_weights* weights) GRUC_NOEXCEPT;
GRUC_CUDA_API int32_t gruc_cuda_weights_device(const gruc_cuda_weights* weights) GRUC_NOEXCEPT;
GRUC_CUDA_API size_t gruc_cuda_weights_bytes(const gruc_cuda_weights* weights) GRUC_NOEXCEPT; /* of device memory */

/* Defaults for T steps of B rows in the layout [T, B, ...]; all pointers NULL. */
GRUC_CUDA_API gruc_status gruc_cuda_sequence_init_sized(const gruc_cuda_weights* weights, int64_t steps, int64_t batch,
                                                        gruc_sequence* sequence, uint32_t struct_size) GRUC_NOEXCEPT;
static inline gruc_status gruc_cuda_sequence_init(const gruc_cuda_weights* weights, int64_t steps, int64_t batch,
                                                  gruc_sequence* sequence) GRUC_NOEXCEPT {
  return gruc_cuda_sequence_init_sized(weights, steps, batch, sequence, sizeof *sequence);
}
/* Bytes of device memory, 32 MiB for cuBLAS included. Depends on the weights and on steps, batch, lengths and the
 * strides of x. */
GRUC_CUDA_API gruc_status gruc_cuda_forward_workspace(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                                      size_t* size) GRUC_NOEXCEPT;
/* gruc_forward. `threads` and `first_step` are not used. The workspace is device memory, 256-byte aligned, of this call
 * until the stream has come so far; NULL: from a pool of the library's own, which keeps it for later calls. A call with
 * a workspace may be captured into a CUDA graph, once the same call has run outside of one; what it names, and the
 * weights, must live as long as the graph. */
GRUC_CUDA_API gruc_status gruc_cuda_forward(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                            void* stream) GRUC_NOEXCEPT;

/* The calls of training, as those of gru_core.h. gruc_cuda_forward_train uses the sequence's workspace, of as many
 * bytes as gruc_cuda_forward's. Tape and workspaces are device memory, 256-byte aligned; nothing on a tape says whose
 * it is: that backward gets the tape of its very sequence is up to the caller. Gradients are added to what their arrays
 * hold, by sums whose order is not fixed. What is said of graphs holds for these calls too. */
GRUC_CUDA_API gruc_status gruc_cuda_tape_size(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                              const gruc_training* training, size_t* size) GRUC_NOEXCEPT;
GRUC_CUDA_API gruc_status gruc_cuda_forward_train(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                                  const gruc_training* training, void* tape, size_t tape_size,
                                                  void* stream) GRUC_NOEXCEPT;
GRUC_CUDA_API gruc_status gruc_cuda_gradients_init_sized(const gruc_cuda_weights* weights, int64_t steps, int64_t batch,
                                                         gruc_gradients* gradients, uint32_t struct_size) GRUC_NOEXCEPT;
static inline gruc_status gruc_cuda_gradients_init(const gruc_cuda_weights* weights, int64_t steps, int64_t batch,
                                                   gruc_gradients* gradients) GRUC_NOEXCEPT {
  return gruc_cuda_gradients_init_sized(weights, steps, batch, gradients, sizeof *gradients);
}
GRUC_CUDA_API gruc_status gruc_cuda_backward_workspace(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                                       const gruc_training* training, const gruc_gradients* gradients,
                                                       size_t* size) GRUC_NOEXCEPT;
/* gradients.params and its structs are in host memory, the arrays that they name in device memory. */
GRUC_CUDA_API gruc_status gruc_cuda_backward(const gruc_cuda_weights* weights, const gruc_sequence* sequence,
                                             const gruc_training* training, const void* tape, size_t tape_size,
                                             const gruc_gradients* gradients, void* stream) GRUC_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif /* GRU_CORE_CUDA_H */
