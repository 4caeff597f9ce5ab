# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Every call of gru_c.stream's Cython API, without the GIL and from several threads, for test_cython_api.py."""

from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from gru_c.stream cimport STREAM_IN_USE, STREAM_OK, check, handle_of, process, reset, step, stream_handle

cdef extern from "gru_core/gru_core.h":
    const char* gruc_version()

IN_USE = STREAM_IN_USE
OK = STREAM_OK


def version():
    return gruc_version().decode()


def run(stream, const float[:, ::1] x, float[:, ::1] y):
    """Frame by frame; the statuses' sum."""
    cdef stream_handle* handle = handle_of(stream)
    cdef Py_ssize_t t
    cdef int status = 0
    with nogil:
        for t in range(x.shape[0]):
            status += step(handle, &x[t, 0], &y[t, 0])
    return status


def run_block(stream, const float[:, ::1] x, float[:, ::1] y):
    cdef stream_handle* handle = handle_of(stream)
    cdef int status
    with nogil:
        status = process(handle, x.shape[0], &x[0, 0], &y[0, 0])
    return status


def run_all(list streams, const float[:, :, ::1] x, float[:, :, ::1] y):
    """Stream s over x[s], the streams shared by OpenMP's threads; the statuses' sum."""
    cdef Py_ssize_t count = len(streams)
    cdef stream_handle** handles = <stream_handle**>malloc(count * sizeof(stream_handle*))
    cdef Py_ssize_t s, t
    cdef int status = 0
    if handles == NULL:
        raise MemoryError
    try:
        for s in range(count):
            handles[s] = handle_of(streams[s])
        for s in prange(count, nogil=True, num_threads=2, schedule="static", chunksize=1):
            for t in range(x.shape[1]):
                status += step(handles[s], &x[s, t, 0], &y[s, t, 0])
    finally:
        free(handles)
    return status


def restart(stream):
    cdef stream_handle* handle = handle_of(stream)
    with nogil:
        status = reset(handle)
    return status


def without_a_stream():
    """The statuses of all calls for a NULL handle."""
    return step(NULL, NULL, NULL), process(NULL, 1, NULL, NULL), reset(NULL)


def without_arrays(stream):
    return step(handle_of(stream), NULL, NULL)


def raise_for(int status):
    check(status)
