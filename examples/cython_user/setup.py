"""One extension module. It needs no include path and no library: Cython finds gru_c/stream.pxd where gru_c lies."""

from setuptools import Extension, setup

setup(
    packages=["gapfill"],
    package_dir={"": "src"},
    ext_modules=[Extension("gapfill.loop", ["src/gapfill/loop.pyx"])],
)
