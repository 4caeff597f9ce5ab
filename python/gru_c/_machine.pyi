# The types of _machine, the pybind11 module, by hand; stubtest compares them. The docstrings are in machine_module.cpp.

def fma_rate(isa: str, seconds: float) -> float: ...  # flop/s
def read_bandwidth(isa: str, nbytes: int, seconds: float) -> float: ...  # bytes/s
