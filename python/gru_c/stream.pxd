# cython: language_level=3
"""What other packages cimport: streams that are stepped from C code, without the GIL, NumPy, gru_core.h or a library to
link. Cython fetches the functions from the module gru_c.stream, as capsules that name their types, when it is imported.

    from gru_c.stream cimport check, handle_of, step, stream_handle

    stream = gru.stream(batch)                        # owns the state and keeps the weights; must outlive the handle
    cdef stream_handle* handle = handle_of(stream)
    with nogil:
        status = step(handle, x, y)
    check(status)                                     # raises what step would not

No name and no type here changes in a later release (tests/python/test_cython_api.py has the list). Must not declare the
class Stream, whose layout may change.
"""

from libc.stdint cimport int64_t

# Of one gru_c.Stream; used by one thread at a time, and not by Python meanwhile.
cdef struct stream_handle

cdef enum:
    STREAM_OK = 0
    STREAM_IN_USE = -1  # another thread is inside of this stream: nothing was done. Other numbers are a gruc_status

# Of a gru_c.Stream, for as long as that lives; TypeError for anything else.
cdef stream_handle* handle_of(object stream) except NULL

# One frame: x [B, I] -> y [B, H], float32, which may be the same memory where I = H. Never allocates, waits, makes a
# system call or looks at the data to decide anything, for a stream of one thread.
cdef int step(stream_handle* stream, const float* x, float* y) noexcept nogil

# T frames: x [T, B, I] -> y [T, B, H]. The same bits as T calls of `step`.
cdef int process(stream_handle* stream, int64_t steps, const float* x, float* y) noexcept nogil

# Back to the initial state: zeros, or the network's own h0 where it has one.
cdef int reset(stream_handle* stream) noexcept nogil

# Raises for any status but STREAM_OK: RuntimeError for STREAM_IN_USE, else what gru_c raises, with the reason that the
# calling thread's last failed call had.
cdef int check(int status) except -1
