"""What the compilers and the linker made of the core: what kernel objects and the library hold, need and export.

Of what CMake built in GRUC_BUILD_DIR (build/dev where that is not set); the sources' own rules are in test_codebase.py.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "include" / "gru_core" / "gru_core.h"


@pytest.fixture(scope="module")
def build() -> Path:
    forced = os.environ.get("GRUC_BUILD_DIR")
    path = Path(forced) if forced else ROOT / "build" / "dev"
    if not (path / "CMakeCache.txt").is_file():
        if forced:
            pytest.fail(f"GRUC_BUILD_DIR={forced} is no build directory")
        pytest.skip(f"no build directory at {path}; set GRUC_BUILD_DIR to test what CMake built")
    if shutil.which("nm") is None or platform.system() != "Linux":
        pytest.skip("needs nm and ELF objects")
    if "fsanitize" in (path / "CMakeCache.txt").read_text():
        pytest.skip(f"{path} is built with a sanitizer, which adds symbols of its own")
    return path


def tool(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def symbols(path: Path, *options: str) -> dict[str, str]:
    """Name -> nm's letter."""
    lines = tool("nm", "--format=posix", *options, path).splitlines()
    return {fields[0]: fields[1] for fields in (line.split() for line in lines) if len(fields) > 1}


def objects(build: Path, target: str) -> list[Path]:
    found = sorted(build.glob(f"CMakeFiles/{target}.dir/**/*.o"))
    assert found, f"{target} has no objects in {build}"
    return found


# What is compiled once per ISA: the kernels, and the limits that they are held against.
PER_ISA = ("kernels", "limits")
# memcpy and memset are the C library's, and what compilers make of plain loops.
NEEDED = {"memcpy", "memset", "memmove", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}


def kernel_objects(build: Path, kind: str = "kernels") -> dict[str, Path]:
    prefix = f"gru_{kind}_"
    isas = [p.name.removeprefix(prefix).removesuffix(".dir") for p in build.glob(f"CMakeFiles/{prefix}*.dir")]
    found = {isa: objects(build, prefix + isa) for isa in isas}
    assert "portable" in found
    assert all(len(files) == 1 for files in found.values())
    return {isa: files[0] for isa, files in found.items()}


@pytest.mark.parametrize("kind", PER_ISA)
def test_kernel_objects_export_their_table_alone(build: Path, kind: str) -> None:
    for isa, path in kernel_objects(build, kind).items():
        exported = symbols(path, "--defined-only", "--extern-only")
        assert list(exported) == [f"_ZN4gruc{len(f'{kind}_{isa}')}{kind}_{isa}E"]
        weak = {name: letter for name, letter in symbols(path).items() if letter in "WwVvu"}
        assert weak == {}, isa


@pytest.mark.parametrize("kind", PER_ISA)
def test_kernel_objects_need_nothing(build: Path, kind: str) -> None:
    for isa, path in kernel_objects(build, kind).items():
        assert set(symbols(path, "--undefined-only")) <= NEEDED, isa


def test_files_of_the_fixed_size_header_share_nothing(build: Path) -> None:
    """A function that two files had in common could be picked from the one whose flags this CPU cannot run."""
    found = sorted((build / "tests" / "cpp" / "CMakeFiles").glob("gru_fixed_*.dir/*.o"))
    assert found
    for path in found:
        isa = path.parent.name.removeprefix("gru_fixed_").removesuffix(".dir")
        name = f"fixed_runs_{isa}"
        assert list(symbols(path, "--defined-only", "--extern-only")) == [f"_ZN4gruc4test{len(name)}{name}E"]
        assert set(symbols(path, "--undefined-only")) <= NEEDED, isa


def registers(path: Path) -> set[str]:
    """Which of ymm, zmm, and instructions in AVX's encoding, an object has."""
    code = tool("objdump", "--disassemble", "--no-show-raw-insn", path)
    found = set(re.findall(r"%([yz]mm)\d", code))
    return found | ({"vex"} if re.search(r"\tv\w+\s[^\n]*%[xyz]mm", code) else set())


@pytest.mark.parametrize(("kind", "baseline"), [("kernels", "gru_core*"), ("limits", "gru_machine")])
def test_only_kernel_objects_hold_vector_code(build: Path, kind: str, baseline: str) -> None:
    if platform.machine() not in {"x86_64", "AMD64"} or shutil.which("objdump") is None:
        pytest.skip("needs objdump and an x86-64 build")
    kernels = kernel_objects(build, kind)
    for path in [*objects(build, baseline), kernels["portable"]]:
        assert registers(path) == set(), path.name
    assert registers(kernels["avx2"]) == {"ymm", "vex"}
    assert "zmm" in registers(kernels["avx512"])


def test_kernels_do_not_jump_on_data(build: Path) -> None:
    """A scalar comparison of floats sets flags for a jump; a step's time may not depend on the data."""
    if platform.machine() not in {"x86_64", "AMD64"} or shutil.which("objdump") is None:
        pytest.skip("needs objdump and an x86-64 build")
    for name, path in kernel_objects(build).items():
        code = tool("objdump", "--disassemble", "--no-show-raw-insn", path)
        assert re.findall(r"\tv?u?comis[sd]\s", code) == [], name


def declared_functions(header: Path, mark: str) -> list[str]:
    text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.DOTALL)
    return sorted(re.findall(rf"^{mark}\b[^;(]*?\b(gruc_\w+)\(", text, flags=re.MULTILINE))


def listed_functions(name: str = "exported_symbols.txt") -> list[str]:
    lines = (ROOT / "tests" / "data" / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_lists_of_exports_are_the_headers() -> None:
    assert listed_functions() == declared_functions(HEADER, "GRUC_API")
    cuda = declared_functions(HEADER.with_name("gru_core_cuda.h"), "GRUC_CUDA_API")
    assert listed_functions("exported_symbols_cuda.txt") == cuda


def test_the_library_exports_the_list(build: Path) -> None:
    exported = symbols(build / "libgru_core.so", "--dynamic", "--defined-only", "--extern-only")
    assert sorted(exported) == listed_functions()
    assert set(exported.values()) == {"T"}
