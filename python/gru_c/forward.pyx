# cython: language_level=3, freethreading_compatible=True, auto_pickle=False
"""Whole sequences: a call's arguments checked and handed to the C ABI. In Cython, since the same in Python takes 3.6 us,
half as long as 100 steps of 16 units.

Must not import frameworks; the arithmetic is behind the C ABI of gru_core.h.
"""

from libc.stdint cimport int64_t
from cpython.pycapsule cimport PyCapsule_GetPointer

cimport numpy as cnp

from gru_c._abi cimport (GRUC_OK, NOGIL_WORK, gruc_forward, gruc_sequence, gruc_sequence_init, gruc_status, gruc_weights,
                         is_plain, raise_status)

from gru_c.arrays import as_attention, as_float32, as_lengths, as_steps, as_threads, broadcast_h0, checked_out

cnp.import_array()

cdef object ZERO = 0


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C arrays have memory in common."""
    cdef char* a0 = <char*>cnp.PyArray_DATA(a)
    cdef char* b0 = <char*>cnp.PyArray_DATA(b)
    return a0 < b0 + cnp.PyArray_NBYTES(b) and b0 < a0 + cnp.PyArray_NBYTES(a)


cdef class Forward:
    """What `GRU.__call__` runs; its docstring says what the arguments are. A method, since a call of the object itself
    would pack the arguments into a tuple first.

    `own_h0` [L*D, 1 or B, H] and `own_lengths` [B] are the network's own values where a call has none; None: zeros,
    whole sequences.
    """

    cdef const gruc_weights* _packed
    cdef readonly object weights  # owns what _packed points to
    cdef object _own_h0
    cdef object _own_lengths
    cdef bint _batch_first
    cdef bint _attention
    cdef int64_t _input_size
    cdef int64_t _hidden_size
    cdef int64_t _rows  # of h0 and h_n: layers * directions
    cdef int64_t _width  # of y: directions * hidden size
    cdef int64_t _work  # multiplications of one row and step

    def __init__(self, weights, spec, own_h0, own_lengths):
        self._packed = <const gruc_weights*>PyCapsule_GetPointer(weights.handle, "gruc_weights")
        self.weights = weights
        self._own_h0 = own_h0
        self._own_lengths = own_lengths
        self._batch_first = spec.batch_first
        self._attention = spec.attention
        self._input_size = spec.input_size
        self._hidden_size = spec.hidden_size
        self._rows = spec.num_layers * spec.num_directions
        self._width = spec.num_directions * spec.hidden_size
        self._work = spec.num_parameters

    def run(self, x, h0, lengths, out, threads, attention, first_step):
        if not is_plain(x):
            x = as_float32("x", x)
        cdef cnp.ndarray xa = <cnp.ndarray>x
        cdef int rank = cnp.PyArray_NDIM(xa)
        cdef cnp.npy_intp* shape = cnp.PyArray_DIMS(xa)
        if not (rank == 2 or rank == 3) or shape[rank - 1] != self._input_size:
            size = self._input_size
            wanted = f"[B, T, {size}]" if self._batch_first else f"[T, B, {size}]"
            raise ValueError(f"x: expected shape {wanted} or [T, {size}], got {x.shape}")
        cdef bint batched = rank == 3
        cdef int64_t steps = shape[1] if batched and self._batch_first else shape[0]
        cdef int64_t batch = 1 if not batched else shape[0] if self._batch_first else shape[1]

        cdef cnp.npy_intp[3] y_shape
        y_shape[0] = shape[0]
        y_shape[1] = shape[1]
        y_shape[rank - 1] = self._width
        cdef cnp.npy_intp[3] h_shape
        h_shape[0] = self._rows
        h_shape[1] = batch
        h_shape[rank - 1] = self._hidden_size

        cdef cnp.ndarray h0_array = None
        if h0 is not None:
            if not is_plain(h0):
                h0 = as_float32("h0", h0)
            h0_array = <cnp.ndarray>h0
            if not (cnp.PyArray_NDIM(h0_array) == rank
                    and cnp.PyArray_CompareLists(cnp.PyArray_DIMS(h0_array), h_shape, rank)):
                raise ValueError(f"h0: expected shape {tuple(h_shape[i] for i in range(rank))}, got {h0.shape}")
        elif self._own_h0 is not None:
            h0_array = <cnp.ndarray>broadcast_h0("x", self._own_h0, batch)

        cdef cnp.ndarray counts = None
        if lengths is not None:
            if not batched:
                raise ValueError("lengths: only for a batch; cut x [T, I] to its length instead")
            counts = <cnp.ndarray>as_lengths(lengths, batch, steps)
        elif self._own_lengths is not None:
            counts = <cnp.ndarray>as_lengths(self._own_lengths, batch, steps)

        cdef cnp.ndarray scale = None
        if attention is not None or self._attention:
            scale = <cnp.ndarray>as_attention(attention, self._attention, x.shape[:-1])

        if out is None:
            out = cnp.PyArray_EMPTY(rank, y_shape, cnp.NPY_FLOAT32, 0)
        elif not (is_plain(out) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)
                  and cnp.PyArray_NDIM(<cnp.ndarray>out) == rank
                  and cnp.PyArray_CompareLists(cnp.PyArray_DIMS(<cnp.ndarray>out), y_shape, rank)
                  and not overlap(<cnp.ndarray>out, xa)
                  and not (h0_array is not None and overlap(<cnp.ndarray>out, h0_array))
                  and not (scale is not None and overlap(<cnp.ndarray>out, scale))):
            # Raises what is wrong, unless it is an empty array within another one.
            checked_out(out, tuple(y_shape[i] for i in range(rank)), {"x": x, "h0": h0_array, "attention": scale})
            if cnp.PyArray_SIZE(<cnp.ndarray>out) != 0:
                raise ValueError("out: expected a plain array")
        cdef cnp.ndarray y = <cnp.ndarray>out
        cdef cnp.ndarray h_n = cnp.PyArray_EMPTY(rank, h_shape, cnp.NPY_FLOAT32, 0)

        cdef gruc_sequence s
        cdef gruc_status status = gruc_sequence_init(self._packed, steps, batch, &s)
        if status != GRUC_OK:
            raise_status(status)
        if self._batch_first:
            s.x_step_stride = self._input_size
            s.x_batch_stride = steps * self._input_size
            s.y_step_stride = self._width
            s.y_batch_stride = steps * self._width
            s.attention_step_stride = 1
            s.attention_batch_stride = steps
        s.threads = 1 if threads is None else as_threads(threads)
        s.x = <const float*>cnp.PyArray_DATA(xa)
        s.attention = NULL if scale is None else <const float*>cnp.PyArray_DATA(scale)
        if first_step is not ZERO:
            s.first_step = as_steps("first_step", first_step)
        s.h0 = NULL if h0_array is None else <const float*>cnp.PyArray_DATA(h0_array)
        s.lengths = NULL if counts is None else <const int64_t*>cnp.PyArray_DATA(counts)
        s.y = <float*>cnp.PyArray_DATA(y)
        s.h_n = <float*>cnp.PyArray_DATA(h_n)
        if steps * batch < NOGIL_WORK and steps * batch * self._work < NOGIL_WORK:
            status = gruc_forward(self._packed, &s)
        else:
            with nogil:
                status = gruc_forward(self._packed, &s)
        if status != GRUC_OK:
            raise_status(status)
        return y, h_n
