# cython: language_level=3
"""What the Cython modules of this package share: the C ABI's declarations, and how arrays and errors cross it.

Must not declare anything from C that gru_core.h does not have.
"""

from libc.stdint cimport int32_t, int64_t

cimport numpy as cnp

cdef extern from "gru_core/gru_core.h" nogil:
    ctypedef struct gruc_weights:
        pass
    ctypedef struct gruc_state:
        pass
    ctypedef struct gruc_sequence:
        int32_t threads
        const float* x
        int64_t x_step_stride
        int64_t x_batch_stride
        const int64_t* lengths
        const float* h0
        float* y
        int64_t y_step_stride
        int64_t y_batch_stride
        float* h_n
        int64_t first_step
        const float* attention
        int64_t attention_step_stride
        int64_t attention_batch_stride
    ctypedef int gruc_status
    int GRUC_OK
    int GRUC_OUT_OF_MEMORY
    int GRUC_INTERNAL
    const char* gruc_last_error()
    const char* gruc_status_name(gruc_status)
    gruc_status gruc_state_create(const gruc_weights*, int64_t, gruc_state**)
    void gruc_state_destroy(gruc_state*)
    gruc_status gruc_state_get(const gruc_state*, float*)
    gruc_status gruc_state_set(gruc_state*, const float*)
    int64_t gruc_state_position(const gruc_state*)
    gruc_status gruc_state_set_position(gruc_state*, int64_t)
    gruc_status gruc_state_set_threads(gruc_state*, int32_t)
    gruc_status gruc_step(gruc_state*, const float*, float*)
    gruc_status gruc_process(gruc_state*, int64_t, const float*, float*)
    gruc_status gruc_sequence_init(const gruc_weights*, int64_t, int64_t, gruc_sequence*)
    gruc_status gruc_forward(const gruc_weights*, const gruc_sequence*)


# Multiplications below which a call keeps the GIL: handing it over and back costs as much as this many take (4 us).
cdef enum:
    NOGIL_WORK = 1 << 18


cdef inline int raise_status(gruc_status status) except -1:
    # Where another thread's call failed, this one has no reason to tell.
    message = ((<bytes>gruc_last_error()) or (<bytes>gruc_status_name(status))).decode(errors="replace")
    if status == GRUC_OUT_OF_MEMORY:
        raise MemoryError(message)
    if status == GRUC_INTERNAL:
        raise RuntimeError(message)
    raise ValueError(message)


cdef inline bint is_plain(object array) noexcept:
    """Whether `array` is a float32 C array that can be read in place."""
    return (cnp.PyArray_Check(array) and cnp.PyArray_TYPE(<cnp.ndarray>array) == cnp.NPY_FLOAT32
            and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>array))
