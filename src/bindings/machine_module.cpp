// gru_c._machine: this machine's own limits for Python's benchmarks. Not imported by gru_c itself.
// Must not include anything but machine/limits.h.
#include <pybind11/pybind11.h>

#include "machine/limits.h"

namespace py = pybind11;

PYBIND11_MODULE(_machine, m, py::mod_gil_not_used()) {
  m.doc() = "What one core of this machine can do at most, measured on the calling thread.";
  m.def("fma_rate", &gruc::fma_rate, py::arg("isa"), py::arg("seconds"), py::call_guard<py::gil_scoped_release>(),
        "The best rate of fma on registers alone, in floating-point operations a second (two for each lane of an "
        "fma).\n\n"
        "Measures for about `seconds` seconds. ValueError for an ISA that is unknown or that this machine cannot run.");
  m.def("read_bandwidth", &gruc::read_bandwidth, py::arg("isa"), py::arg("nbytes"), py::arg("seconds"),
        py::call_guard<py::gil_scoped_release>(),
        "The best rate of reading a working set of `nbytes` bytes (rounded up to 512) over and over, in bytes a "
        "second.\n\n"
        "Measures for about `seconds` seconds. ValueError for an ISA that is unknown or that this machine cannot run,\n"
        "and for `nbytes` below 1.");
}
