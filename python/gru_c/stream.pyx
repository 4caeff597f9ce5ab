# cython: language_level=3, freethreading_compatible=True
"""Streams: the hot step. A call costs some 60 ns here against 330 ns through pybind11, so this is Cython.

Must not import frameworks; the arithmetic is behind the C ABI of gru_core.h.
"""

cimport cython
from libc.stdint cimport int64_t
from cpython.pycapsule cimport PyCapsule_GetPointer

cimport numpy as cnp
import numpy as np

from gru_c._abi cimport (GRUC_OK, NOGIL_WORK, gruc_process, gruc_state, gruc_state_create, gruc_state_destroy,
                         gruc_state_get, gruc_state_position, gruc_state_set, gruc_state_set_position,
                         gruc_state_set_threads, gruc_status, gruc_step, gruc_weights, is_plain, raise_status)

from gru_c.arrays import as_float32, as_steps, as_threads, checked_out

cnp.import_array()

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    static int gruc_enter(volatile long* busy) { return _InterlockedExchange(busy, 1) == 0; }
    static void gruc_leave(volatile long* busy) { _InterlockedExchange(busy, 0); }
    #else
    static int gruc_enter(volatile long* busy) { return __atomic_exchange_n(busy, 1, __ATOMIC_ACQUIRE) == 0; }
    static void gruc_leave(volatile long* busy) { __atomic_store_n(busy, 0, __ATOMIC_RELEASE); }
    #endif
    """
    bint gruc_enter(volatile long*) noexcept nogil
    void gruc_leave(volatile long*) noexcept nogil


cdef struct stream_handle:
    gruc_state* state
    const float* initial
    volatile long busy


cdef int raise_in_use() except -1:
    raise RuntimeError("this stream is in use by another thread; give each thread a stream of its own")


cdef int raise_uninitialised() except -1:
    raise RuntimeError("this Stream was not initialised; make one with GRU.stream()")


@cython.no_gc_clear  # the state points into the weights until it is destroyed
cdef class Stream:
    """The state of `batch` independent rows that one network steps through, frame by frame.

    Made by `GRU.stream(batch, threads)`, which says what the two mean and raise. The same bits as the whole sequence in
    one call. Weights are shared, not copied. Use it from one thread at a time: a second one gets a RuntimeError while the
    first is inside a call. After a fork, a stream that another thread was inside of stays unusable in the child.
    """

    cdef stream_handle _handle
    cdef object _weights
    cdef object _initial
    cdef int64_t _work
    cdef bint _batch_first
    cdef readonly int64_t batch
    cdef readonly int64_t input_size
    cdef readonly int64_t hidden_size
    cdef readonly int64_t num_layers

    def __cinit__(self, *args, **kwargs):
        self._handle.state = NULL
        self._handle.initial = NULL
        self._handle.busy = 0

    def __init__(self, gru, batch=1, threads=None):
        from gru_c.gru import GRU  # which imports this module

        if self._handle.state != NULL:
            raise RuntimeError("a Stream cannot be initialised twice")
        if not isinstance(gru, GRU):
            raise TypeError(f"gru: expected a GRU, got {type(gru).__name__}")
        spec = gru.spec
        if spec.bidirectional or spec.reverse:
            raise ValueError("stream: a reverse direction starts at the end of a sequence; call the GRU on whole ones")
        if spec.attention:
            raise ValueError("stream: a step has no place for an attention; call the GRU on sequences, with the state as h0")
        if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)):
            raise TypeError(f"batch: expected an int, got {batch!r}")
        if not 0 <= batch < 1 << 62:
            raise ValueError(f"batch: expected 0 or more, got {batch}")
        # Everything that can raise comes before the state is there: a stream is complete or refuses every call.
        count = as_threads(threads)
        initial = gru._own_h0("batch", batch)
        weights = gru._packed.inference().weights
        cdef const gruc_weights* packed = <const gruc_weights*>PyCapsule_GetPointer(weights.handle, "gruc_weights")
        cdef gruc_state* state = NULL
        self._batch_first = spec.batch_first
        self.batch = batch
        self.input_size = spec.input_size
        self.hidden_size = spec.hidden_size
        self.num_layers = spec.num_layers
        self._work = batch * spec.num_parameters
        cdef gruc_status status = gruc_state_create(packed, batch, &state)
        if status == GRUC_OK:
            status = gruc_state_set_threads(state, count)
        if status != GRUC_OK:
            gruc_state_destroy(state)
            raise_status(status)
        self._weights = weights
        self._initial = initial
        if initial is not None:
            self._handle.initial = <const float*>cnp.PyArray_DATA(<cnp.ndarray>initial)
        self._handle.state = state
        self.reset()

    def __dealloc__(self):
        gruc_state_destroy(self._handle.state)

    cdef int enter(self) except -1:
        if self._handle.state == NULL:
            raise_uninitialised()
        if not gruc_enter(&self._handle.busy):
            raise_in_use()
        return 0

    def step(self, x, out=None):
        """One frame: x [B, I] -> the last layer's new state [B, H]; [I] -> [H] is allowed where batch is 1.

        Args:
            x: float32 is read in place; other real dtypes and strided arrays are copied first.
            out: a writeable C-contiguous float32 array for the result, which may be `x` itself where I = H.

        Returns:
            `out`, or a new array.

        Raises:
            TypeError, ValueError: a wrong dtype or shape; the message names the argument.
            RuntimeError: another thread is inside this stream.
        """
        if not is_plain(x):
            x = as_float32("x", x)
        cdef cnp.ndarray xa = <cnp.ndarray>x
        cdef int rank = cnp.PyArray_NDIM(xa)
        cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(xa)
        if not ((rank == 2 and shape[0] == self.batch and shape[1] == self.input_size)
                or (rank == 1 and self.batch == 1 and shape[0] == self.input_size)):
            raise ValueError(f"x: expected shape {(self.batch, self.input_size)}"
                             + (f" or {(self.input_size,)}" if self.batch == 1 else "") + f", got {x.shape}")
        cdef cnp.npy_intp[2] size
        size[0] = self.batch if rank == 2 else self.hidden_size
        size[1] = self.hidden_size
        if out is None:
            out = cnp.PyArray_EMPTY(rank, size, cnp.NPY_FLOAT32, 0)
        elif not (is_plain(out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)
                  and cnp.PyArray_NDIM(<cnp.ndarray>out) == rank
                  and cnp.PyArray_CompareLists(cnp.PyArray_DIMS(<cnp.ndarray>out), size, rank)):
            checked_out(out, tuple(size[i] for i in range(rank)), {})  # raises what is wrong
        cdef cnp.ndarray ya = <cnp.ndarray>out
        cdef const float* xp = <const float*>cnp.PyArray_DATA(xa)
        cdef float* yp = <float*>cnp.PyArray_DATA(ya)
        cdef gruc_status status
        self.enter()
        if self._work < NOGIL_WORK:
            status = gruc_step(self._handle.state, xp, yp)
        else:
            with nogil:
                status = gruc_step(self._handle.state, xp, yp)
        gruc_leave(&self._handle.busy)
        if status != GRUC_OK:
            raise_status(status)
        return ya

    def process(self, x, out=None):
        """A block of T frames: x [T, B, I] -> [T, B, H], or [B, T, I] -> [B, T, H] for a batch_first network;
        [T, I] -> [T, H] is allowed where batch is 1. The same bits as T calls of `step`.

        Args and errors are those of `step`; `out` may be `x` itself where I = H, but may not overlap it otherwise.
        """
        if not is_plain(x):
            x = as_float32("x", x)
        frames_first = x if not (self._batch_first and x.ndim == 3) else np.ascontiguousarray(x.swapaxes(0, 1))
        if not ((x.ndim == 3 and frames_first.shape[1:] == (self.batch, self.input_size))
                or (x.ndim == 2 and self.batch == 1 and x.shape[1] == self.input_size)):
            wanted = f"[{self.batch}, T, {self.input_size}]" if self._batch_first else f"[T, {self.batch}, {self.input_size}]"
            raise ValueError(f"x: expected shape {wanted}"
                             + (f" or [T, {self.input_size}]" if self.batch == 1 else "") + f", got {x.shape}")
        # Frame by frame, so y may take x's place where the frames are of one size, but not be shifted against it.
        result = checked_out(out, (*x.shape[:-1], self.hidden_size), {} if out is x else {"x": x})
        y = result if frames_first is x else np.empty((*frames_first.shape[:-1], self.hidden_size), dtype=np.float32)
        cdef int64_t steps = frames_first.shape[0]
        cdef const float* xp = <const float*>cnp.PyArray_DATA(<cnp.ndarray>frames_first)
        cdef float* yp = <float*>cnp.PyArray_DATA(<cnp.ndarray>y)
        cdef gruc_status status
        self.enter()
        with nogil:
            status = gruc_process(self._handle.state, steps, xp, yp)
        gruc_leave(&self._handle.busy)
        if status != GRUC_OK:
            raise_status(status)
        if y is not result:
            result[...] = y.swapaxes(0, 1)
        return result

    @property
    def state(self):
        """The hidden states [L, B, H], a copy; assign to set them. Magnitudes of 2^-100 or less become 0, and so does
        `position`."""
        cdef cnp.ndarray h = np.empty((self.num_layers, self.batch, self.hidden_size), dtype=np.float32)
        self.enter()
        cdef gruc_status status = gruc_state_get(self._handle.state, <float*>cnp.PyArray_DATA(h))
        gruc_leave(&self._handle.busy)
        if status != GRUC_OK:
            raise_status(status)
        return h

    @state.setter
    def state(self, value):
        array = as_float32("state", value)
        expected = (self.num_layers, self.batch, self.hidden_size)
        if array.shape != expected:
            raise ValueError(f"state: expected shape {expected}, got {array.shape}")
        self.set_state(<const float*>cnp.PyArray_DATA(<cnp.ndarray>array))

    cdef int set_state(self, const float* h) except -1:
        self.enter()
        cdef gruc_status status = gruc_state_set(self._handle.state, h)
        gruc_leave(&self._handle.busy)
        if status != GRUC_OK:
            raise_status(status)
        return 0

    @property
    def position(self):
        """Steps since the sequence began; assign to go on with one whose `state` was carried over, after that state.
        Only a batch norm with statistics of several steps depends on it."""
        self.enter()
        cdef int64_t position = gruc_state_position(self._handle.state)
        gruc_leave(&self._handle.busy)
        return position

    @position.setter
    def position(self, value):
        cdef int64_t position = as_steps("position", value)
        self.enter()
        cdef gruc_status status = gruc_state_set_position(self._handle.state, position)
        gruc_leave(&self._handle.busy)
        if status != GRUC_OK:
            raise_status(status)

    def reset(self):
        """Back to the initial state, zeros or the network's own h0 where it has one, and to position 0."""
        self.set_state(self._handle.initial)

    def __reduce__(self):
        raise TypeError("a Stream cannot be pickled; save its `state` and make a new stream")

    def __repr__(self):
        return (f"<gru_c.Stream batch={self.batch} input_size={self.input_size} hidden_size={self.hidden_size} "
                f"num_layers={self.num_layers}>")


# --- for other packages: stream.pxd says what they do -----------------------------------------------------------------

cdef stream_handle* handle_of(object stream) except NULL:
    if not isinstance(stream, Stream):
        raise TypeError(f"stream: expected a gru_c.Stream, got {type(stream).__name__}")
    if (<Stream>stream)._handle.state == NULL:
        raise_uninitialised()
    return &(<Stream>stream)._handle


cdef int step(stream_handle* stream, const float* x, float* y) noexcept nogil:
    if stream == NULL:
        return gruc_step(NULL, x, y)  # which says so
    if not gruc_enter(&stream.busy):
        return STREAM_IN_USE
    cdef gruc_status status = gruc_step(stream.state, x, y)
    gruc_leave(&stream.busy)
    return status


cdef int process(stream_handle* stream, int64_t steps, const float* x, float* y) noexcept nogil:
    if stream == NULL:
        return gruc_process(NULL, steps, x, y)
    if not gruc_enter(&stream.busy):
        return STREAM_IN_USE
    cdef gruc_status status = gruc_process(stream.state, steps, x, y)
    gruc_leave(&stream.busy)
    return status


cdef int reset(stream_handle* stream) noexcept nogil:
    if stream == NULL:
        return gruc_state_set(NULL, NULL)
    if not gruc_enter(&stream.busy):
        return STREAM_IN_USE
    cdef gruc_status status = gruc_state_set(stream.state, stream.initial)
    gruc_leave(&stream.busy)
    return status


cdef int check(int status) except -1:
    if status == STREAM_IN_USE:
        raise_in_use()
    if status != STREAM_OK:
        raise_status(<gruc_status>status)
    return 0
