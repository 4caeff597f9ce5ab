# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The loop around the network, in C and without the GIL. Where a reading is missing, the network's own prediction is
its next input, so no frame can be computed before the one before it: not by `Stream.process`, and in Python slowly.
"""

from libc.math cimport isnan

from gru_c.stream cimport STREAM_OK, check, handle_of, step, stream_handle

import numpy as np


def fill(stream, const float[::1] weight not None, float bias, const float[::1] series not None):
    """The series with its gaps (NaN) filled: weight @ h + bias after each value is the prediction of the next.

    `stream` is a gru_c.Stream of one row and one input; it goes on from where it is.
    """
    if (stream.batch, stream.input_size, stream.hidden_size) != (1, 1, weight.shape[0]):
        raise ValueError(f"stream: expected 1 row, 1 input and {weight.shape[0]} units as in weight, got {stream!r}")
    cdef stream_handle* handle = handle_of(stream)  # good for as long as `stream` is
    cdef float[::1] h = np.empty(weight.shape[0], dtype=np.float32)
    filled = np.empty(series.shape[0], dtype=np.float32)
    cdef float[::1] out = filled
    cdef float predicted = bias
    cdef int status = STREAM_OK
    cdef Py_ssize_t t, j
    with nogil:
        for t in range(series.shape[0]):
            out[t] = predicted if isnan(series[t]) else series[t]
            status = step(handle, &out[t], &h[0])
            if status != STREAM_OK:
                break
            predicted = bias
            for j in range(h.shape[0]):
                predicted += weight[j] * h[j]
    check(status)
    return filled
