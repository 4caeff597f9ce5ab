"""Strangers' projects against what was installed: the wheel that these tests import, and a prefix that was moved.

The prefix is installed from GRUC_BUILD_DIR, build/dev where that is not set.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("safetensors")
if sys.platform == "win32":
    pytest.skip("its flags are GCC's and clang's", allow_module_level=True)

from install_tools import (
    STRANGERS,
    TESTS,
    WARNINGS,
    answer,
    build,
    compiler,
    configure,
    numbers,
    output,
    program,
    save_model,
    tool,
)

import gru_c
import gru_c.__main__ as command
from gru_c import GRU, GRUSpec

ROOT = TESTS.parent
PACKAGE = Path(gru_c.__file__).resolve().parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A model file, and what its network answers."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return path, save_model(path)


@dataclass(frozen=True)
class Place:
    """Where gru_core is installed."""

    name: str
    cmake: Path
    include: Path
    lib: Path

    @property
    def variables(self) -> dict[str, str | Path]:
        """How a stranger tells CMake of it."""
        return {"CMAKE_PREFIX_PATH": self.cmake}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    forced = os.environ.get("GRUC_BUILD_DIR")
    folder = Path(forced) if forced else ROOT / "build" / "dev"
    if not (folder / "CMakeCache.txt").is_file():
        pytest.skip(f"no build directory at {folder}; set GRUC_BUILD_DIR to install from one")
    if "fsanitize" in (folder / "CMakeCache.txt").read_text():
        pytest.skip(f"{folder} is built with a sanitizer, which its users would need too")
    place = tmp_path_factory.mktemp("place")
    output(tool("cmake"), "--install", folder, "--prefix", place / "first")
    return (place / "first").rename(place / "moved")


@pytest.fixture(scope="module", params=["wheel", "prefix"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "wheel":
        told = [output(sys.executable, "-m", "gru_c", option).strip() for option in ("--cmakedir", "--includedir")]
        return Place("wheel", Path(told[0]), Path(told[1]), Path(told[0]).parents[1])
    root: Path = request.getfixturevalue("prefix")
    (config,) = root.rglob("gru_coreConfig.cmake")
    return Place("prefix", config.parent, root / "include", config.parents[2])


def check_programs(folder: Path, model: tuple[Path, str], *names: str) -> None:
    for name in names:
        assert output(program(folder, name), model[0]) == model[1], name


# --- CMake ------------------------------------------------------------------------------------------------------------


def test_c(place: Place, model: tuple[Path, str], tmp_path: Path) -> None:
    flags = f"-std=c99 {WARNINGS}"
    configure(STRANGERS / "c", tmp_path, CMAKE_C_FLAGS=flags, **place.variables)
    build(tmp_path)
    check_programs(tmp_path, model, "stranger", "stranger_static")


def test_cpp(place: Place, model: tuple[Path, str], tmp_path: Path) -> None:
    configure(STRANGERS / "cpp", tmp_path, CMAKE_CXX_FLAGS=WARNINGS, CMAKE_CXX_STANDARD="17", **place.variables)
    build(tmp_path)
    check_programs(tmp_path, model, "stranger", "stranger_static")
    if sys.platform == "linux" and shutil.which("nm") is not None:
        (plugin,) = tmp_path.rglob("libplugin.so")
        symbols = [line.split()[0] for line in output("nm", "--format=posix", "-D", plugin).splitlines()]
        assert [name for name in symbols if name.startswith(("gruc_", "_ZN4gruc"))] == [], "a plug-in's own are hidden"
        (shared,) = {p.resolve() for p in place.lib.glob("libgru_core.so*")}
        needed = output("readelf", "--dynamic", program(tmp_path, "stranger"))
        assert f"[{'libgru_core.so' if place.name == 'wheel' else 'libgru_core.so.1'}]" in needed, shared


@pytest.mark.parametrize("isa", ["", "-march=x86-64", "-mavx2 -mfma"])
def test_fixed(place: Place, isa: str, tmp_path: Path) -> None:
    if isa and platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("needs x86-64")
    if "avx2" in isa and "avx2" not in gru_c.supported_isas():
        pytest.skip("this CPU has no AVX2")
    spec = GRUSpec(input_size=3, hidden_size=5)
    gru = GRU(spec, {name: numbers(*shape) for name, shape in spec.parameter_shapes().items()})
    flags = f"{WARNINGS} {isa}"
    configure(STRANGERS / "fixed", tmp_path, CMAKE_CXX_FLAGS=flags, CMAKE_CXX_STANDARD="17", **place.variables)
    build(tmp_path)
    assert output(program(tmp_path, "stranger")) == answer(gru)


def test_without_openmp(place: Place, tmp_path: Path) -> None:
    """Where OpenMP is not to be had the package has its other targets, and says why it lacks this one."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(stranger LANGUAGES C)\n"
        "find_package(gru_core CONFIG QUIET COMPONENTS ${COMPONENTS})\n"
        "get_target_property(includes gru_core::gru_core_headers INTERFACE_INCLUDE_DIRECTORIES)\n"
        'message(STATUS "found=${gru_core_FOUND} because=${gru_core_NOT_FOUND_MESSAGE} includes=${includes}")\n'
    )
    without = {"CMAKE_DISABLE_FIND_PACKAGE_OpenMP": "ON", **place.variables}
    text = configure(tmp_path, tmp_path / "with", COMPONENTS="static;shared", **place.variables)
    assert "found=1 because= " in text
    (includes,) = re.findall(r"includes=(.*)", text)
    assert Path(includes).resolve() == place.include.resolve()
    text = configure(tmp_path, tmp_path / "without", COMPONENTS="static;shared", **without)
    assert "found=0 because=gru_core::gru_core_static needs OpenMP" in text
    assert "found=1 because= " in configure(tmp_path, tmp_path / "shared", COMPONENTS="shared", **without)


def test_versions(place: Place, tmp_path: Path) -> None:
    """0.x: the same minor version; else the same major one."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(stranger LANGUAGES C)\nforeach(version IN LISTS VERSIONS)\n"
        "  find_package(gru_core ${version} CONFIG QUIET)\n"
        '  message(STATUS "${version}=${gru_core_FOUND}=${gru_core_VERSION}")\nendforeach()\n'
    )
    major, minor, patch = (int(part) for part in gru_c.__version__.split("."))
    assert major == 0, "from 1.0 on an older minor version is compatible"
    asked = {f"0.{minor}": 1, f"0.{minor}.{patch}": 1, f"0.{minor}.{patch + 1}": 0, f"0.{minor + 1}": 0, "1.0": 0}
    text = configure(tmp_path, tmp_path / "build", VERSIONS=";".join(asked), **place.variables)
    for version, found in asked.items():
        assert f"{version}={found}=" in text, version
    assert f"0.{minor}=1={gru_c.__version__}" in text


def test_the_package_names_no_path(place: Place) -> None:
    files = [*place.cmake.iterdir(), place.lib / "pkgconfig" / "gru_core.pc"]
    assert len(files) >= 7
    for path in files:
        text = path.read_text()
        assert str(ROOT) not in text, path.name
        assert re.findall(r'[ "=](/(?:usr|tmp|home|work|opt|project)/\S*)', text) == [], path.name


def test_no_trace_of_cuda(place: Place, tmp_path: Path) -> None:
    """What is built without GRUC_CUDA: no file but Python's, no word of it in any other, and CMake says why."""
    if importlib.util.find_spec("gru_c._cuda") is not None:
        pytest.skip("this gru_c was built with CUDA")
    root = PACKAGE if place.name == "wheel" else place.include.parent
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyi", ".pyc")]
    assert len(files) > 15
    assert [path.name for path in files if "cuda" in path.name] == []
    compiled = [path for path in files if path.suffix in (".h", ".hpp", ".a") or ".so" in path.name]
    assert [path.name for path in compiled if re.search(rb"gruc_cuda|cublas|cudart", path.read_bytes())] == []
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(stranger LANGUAGES C)\n"
        "find_package(gru_core CONFIG QUIET COMPONENTS cuda)\n"
        'message(STATUS "found=${gru_core_FOUND} because=${gru_core_NOT_FOUND_MESSAGE}")\n'
    )
    text = configure(tmp_path, tmp_path / "build", **place.variables)
    assert "found=0 because=gru_core::gru_core_cuda is not in this installation" in text


def test_pkg_config(place: Place, model: tuple[Path, str], tmp_path: Path) -> None:
    where = {"PKG_CONFIG_PATH": str(place.lib / "pkgconfig")}
    asked = tool("pkg-config", "pkgconf")
    assert output(asked, "--modversion", "gru_core", **where).strip() == gru_c.__version__
    flags = output(asked, "--cflags", "--libs", "gru_core", **where).split()
    folder = output(asked, "--variable=libdir", "gru_core", **where).strip()
    main = STRANGERS / "c" / "main.c"
    output(compiler(), *WARNINGS.split(), main, *flags, f"-Wl,-rpath,{folder}", "-o", tmp_path / "stranger")
    check_programs(tmp_path, model, "stranger")


# --- the wheel --------------------------------------------------------------------------------------------------------


def test_folders_need_no_command_line_packages() -> None:
    code = "import sys; sys.modules.update(click=None); sys.argv[1:] = ['{}']; from gru_c.__main__ import *; main()"
    for option, folder in {"--cmakedir": "lib/cmake/gru_core", "--includedir": "include"}.items():
        assert Path(output(sys.executable, "-c", code.format(option)).strip()) == PACKAGE / folder


def test_a_missing_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(command.FOLDERS, "--cmakedir", (tmp_path, "gru_coreConfig.cmake"))
    monkeypatch.setattr(sys, "argv", ["gru-c", "--cmakedir"])
    with pytest.raises(SystemExit, match=re.escape(f"expected gru_coreConfig.cmake in {tmp_path}")):
        command.main()


# --- a part of another project ----------------------------------------------------------------------------------------

# What audio projects have been seen to build with, and more: none of it may change a bit of ours.
HOSTILE = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_CXX_FLAGS": "-ffast-math",
    "CMAKE_CXX_STANDARD": "20",
    "CMAKE_UNITY_BUILD": "ON",
    "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "ON",
    "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
}


@pytest.fixture(scope="module")
def subproject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build of a project that fetched a copy of the sources."""
    if not (ROOT / "CMakeLists.txt").is_file():
        pytest.skip("needs the sources of gru_core")
    folder = tmp_path_factory.mktemp("subproject")
    for name in ("cmake", "include", "src"):
        shutil.copytree(ROOT / name, folder / "fetched" / name)
    shutil.copy(ROOT / "CMakeLists.txt", folder / "fetched")
    configure(STRANGERS / "subproject", folder / "build", GRU_CORE_SOURCE=folder / "fetched", **HOSTILE)
    return folder / "build"


def commands(subproject: Path) -> dict[str, list[tuple[str, set[str]]]]:
    """By target, its source files and what the compiler is told of each, but for the names of files."""
    told: dict[str, list[tuple[str, set[str]]]] = {}
    for entry in json.loads((subproject / "compile_commands.json").read_text()):
        (target,) = re.findall(r"CMakeFiles/(\w+)\.dir/", entry["output"])
        words = [re.sub(r"^-flto=.*", "-flto", word) for word in entry["command"].split()[1:]]
        flags = {word for word in words if not re.match(r"-[ocI]|/|\S+\.o$|-fno-fat-lto", word)}
        told.setdefault(target, []).append((Path(entry["file"]).name, flags))
    return told


def test_no_flag_leaks_out(subproject: Path) -> None:
    told = commands(subproject)
    assert [flags for _, flags in told["own"]] == [{"-ffast-math", "-O3", "-DNDEBUG", "-std=gnu++20", "-flto"}]
    # What links gru_core knows that it is static, and where its headers are.
    assert [flags for _, flags in told["stranger"]] == [{"-O3", "-DNDEBUG", "-DGRUC_STATIC", "-flto"}]


def test_no_flag_leaks_in(subproject: Path) -> None:
    ours = {name: files for name, files in commands(subproject).items() if name not in ("own", "stranger")}
    assert {"gru_core", "gru_core_static", "gru_core_objects", "gru_kernels_portable"} <= set(ours)
    wanted = {"-fno-fast-math", "-ffp-contract=off", "-std=c++17", "-fvisibility=hidden", "-fPIC", "-O3"}
    for target, files in ours.items():
        for file, flags in files:
            assert wanted <= flags, (target, file)
            assert "-flto" not in flags, (target, file)
            assert not file.startswith("unity_"), target


def test_a_subproject_adds_nothing_that_nobody_asked_for(subproject: Path) -> None:
    """No test, no file to install, nothing to build but what is linked."""
    assert "Total Tests: 0" in output(tool("ctest"), "--test-dir", subproject, "--show-only")
    rules = [p for p in subproject.rglob("cmake_install.cmake") if "gru_core" in p.parent.name]
    assert rules
    assert [p for p in rules if "file(INSTALL" in p.read_text()] == []


def test_fetched(subproject: Path, model: tuple[Path, str]) -> None:
    build(subproject)
    check_programs(subproject, model, "stranger")
    assert list(subproject.rglob("libgru_core.so*")) == [], "nobody links it"
