"""What a package built with CUDA holds: its library's symbols, its header, its CMake package, a stranger's C program.

Of the real library and of the shim's alike; nothing of it needs a GPU.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from install_tools import STRANGERS, TESTS, WARNINGS, build, compiler, configure, output, program, save_model, tool

import gru_c

PACKAGE = Path(gru_c.__file__).resolve().parent
LIBRARY = PACKAGE / "lib" / "libgru_core_cuda.so"
CMAKE = PACKAGE / "lib" / "cmake" / "gru_core"

if importlib.util.find_spec("gru_c._cuda") is None:
    pytest.skip("this gru_c was built without CUDA", allow_module_level=True)
if sys.platform != "linux":
    pytest.skip("its tools are those of Linux", allow_module_level=True)


def check_stranger(folder: Path, tmp_path: Path) -> None:
    """It says what it found: a device, as the shim has one, or why there is none."""
    model = tmp_path / "model.safetensors"
    save_model(model)
    said = output(program(folder, "stranger"), model)
    assert re.fullmatch(r"(\d+ bytes on device 0|no device: \w.*)\n", said), said


def test_the_library_exports_the_list() -> None:
    lines = (TESTS / "data" / "exported_symbols_cuda.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    found = output(tool("nm"), "--dynamic", "--defined-only", "--extern-only", "--format=posix", LIBRARY)
    assert {name: letter for name, letter, *_ in map(str.split, found.splitlines())} == dict.fromkeys(listed, "T")


def test_the_cpu_library_knows_nothing_of_it() -> None:
    for path in [PACKAGE / "lib" / "libgru_core.so", *PACKAGE.glob("*.so")]:
        needed = output(tool("readelf"), "--dynamic", path)
        assert ("gru_core_cuda" in needed) == path.name.startswith("_cuda."), path.name
        assert "cublas" not in needed, path.name


def test_importing_the_package_loads_none_of_it() -> None:
    """Else a missing driver or cuBLAS would be everyone's trouble."""
    code = "import gru_c, sys; sys.exit([m for m in sys.modules if m.startswith('gru_c') and 'cuda' in m] or 0)"
    output(sys.executable, "-c", code)


def test_a_stranger_by_cmake(tmp_path: Path) -> None:
    flags = f"-std=c99 {WARNINGS}"
    configure(STRANGERS / "cuda", tmp_path / "build", CMAKE_C_FLAGS=flags, CMAKE_PREFIX_PATH=CMAKE)
    build(tmp_path / "build")
    check_stranger(tmp_path / "build", tmp_path)


def test_a_stranger_by_pkg_config(tmp_path: Path) -> None:
    folder = PACKAGE / "lib"
    where = {"PKG_CONFIG_PATH": str(folder / "pkgconfig")}
    asked = tool("pkg-config", "pkgconf")
    flags = output(asked, "--cflags", "--libs", "gru_core", "gru_core_cuda", **where).split()
    main = STRANGERS / "cuda" / "main.c"
    output(compiler(), *WARNINGS.split(), main, *flags, f"-Wl,-rpath,{folder}", "-o", tmp_path / "stranger")
    check_stranger(tmp_path, tmp_path)


def test_the_package_names_no_path() -> None:
    for path in [*CMAKE.glob("*Cuda*"), PACKAGE / "lib" / "pkgconfig" / "gru_core_cuda.pc"]:
        assert re.findall(r'[ "=](/(?:usr|tmp|home|work|opt|project)/\S*)', path.read_text()) == [], path.name


def test_a_missing_driver_is_named() -> None:
    """The real library on a machine without a GPU: only to("cuda") fails, and says why."""
    import gru_c._cuda as module

    if module.is_shim:
        pytest.skip("the shim has a device")
    code = (
        "import numpy as np, gru_c\n"
        "spec = gru_c.GRUSpec(1, 1)\n"
        "net = gru_c.GRU(spec, {n: np.zeros(s, np.float32) for n, s in spec.parameter_shapes().items()})\n"
        "try:\n    net.to('cuda')\nexcept RuntimeError as error:\n    print(error)\n"
    )
    said = output(sys.executable, "-c", code, CUDA_VISIBLE_DEVICES="")
    assert re.search(r"driver|GPU|device", said), said
