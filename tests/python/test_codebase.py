"""The rules that keep the code small and portable: who includes whom, what stands where. Reads the sources beside this
file; what was built of them is in test_built.py."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import gru_c
from gru_c import packing

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "src" / "gru_core"
INCLUDE = ROOT / "include"
MACHINE = ROOT / "src" / "machine"
HEADER = ROOT / "include" / "gru_core" / "gru_core.h"
SOURCE_SUFFIXES = {".h", ".hpp", ".c", ".cpp", ".cu", ".def", ".map", ".py", ".pyi", ".pyx", ".pxd"}


def sources(*folders: str) -> list[Path]:
    found = [p for folder in folders for p in sorted((ROOT / folder).rglob("*")) if p.is_file()]
    return [p for p in found if p.suffix in SOURCE_SUFFIXES or p.name == "CMakeLists.txt"]


def core_files() -> list[Path]:
    files = [p for p in sources("src/gru_core", "include/gru_core/detail") if p.suffix in {".h", ".cpp", ".cu", ".def"}]
    assert len(files) > 20
    return files


def name_of(path: Path) -> str:
    """As the core includes it."""
    return path.relative_to(INCLUDE if path.is_relative_to(INCLUDE) else CORE).as_posix()


@cache
def code_of(path: Path) -> str:
    """The source without comments and strings."""
    text = re.sub(r"/\*.*?\*/", " ", path.read_text(), flags=re.DOTALL)
    lines = []
    for line in text.splitlines():
        kept = line if line.lstrip().startswith("#include") else re.sub(r'"(\\.|[^"\\])*"', '""', line)
        lines.append(kept.split("//")[0])
    return "\n".join(lines)


def includes(path: Path) -> list[str]:
    """What a file includes, as written: `<vector>` or `"spec.h"`."""
    return re.findall(r'^\s*#\s*include\s*([<"][^>"]+[>"])', path.read_text(), flags=re.MULTILINE)


def own_includes(path: Path) -> list[Path]:
    own = [name.strip('"') for name in includes(path) if name.startswith('"') and "gru_core.h" not in name]
    return [(INCLUDE if name.startswith("gru_core/") else CORE) / name for name in own]


def all_includes(path: Path) -> set[str]:
    """What a file includes, directly or through others of the core."""
    seen: set[Path] = set()
    names: set[str] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        names.update(includes(file))
        todo += [p for p in own_includes(file) if p.suffix != ".def"]
    return names


# --- who includes whom ------------------------------------------------------------------------------------------------

# simd -> kernels -> cpu -> core -> c_api: each room, by the first pattern that its files match, and what its files may
# include of the core. What the core offers its backend (backend.h, arena.h ...) is below cpu; the rest of it is above.
# cuda stands apart: kernels -> launches -> layer -> sequences -> its own C ABI, and nobody else includes any of it.
SIMD = r"gru_core/detail/simd/\w+\.h"
KERNEL_TABLE = r"cpu/kernel_table\.h"
BACKEND_VIEW = r"arena\.h|backend\.h|cell_step\.h|status\.h|unfused_step\.h|unfused_tape\.h"
ROOMS = [
    ("simd, tiny", rf"{SIMD}|gru_core/detail/tiny\.h", r""),
    ("a plain cell", r"gru_core/detail/cell\.h", r"gru_core/detail/tiny\.h"),
    ("kernels", r"cpu/kernels/.*", rf"{KERNEL_TABLE}|cpu/kernels/.*|gru_core/detail/cell\.h"),
    ("kernel object", r"cpu/kernels\.cpp", rf"{KERNEL_TABLE}|{SIMD}|cpu/kernels/.*|cpu/kernels\.def"),
    ("layout", r"cpu/layout\.h", r"gru_core/detail/tiny\.h"),
    ("unfused arguments", r"cpu/unfused_args\.h", r"cpu/layout\.h"),
    ("kernel table", rf"{KERNEL_TABLE}|cpu/kernels\.def", r"cpu/kernels\.def|cpu/unfused_args\.h"),
    ("cpu, rows", r"cpu/rows\.h", r""),
    ("cpu, masks", r"cpu/masks\.(h|cpp)", r"cpu/(masks|team)\.h|backend\.h"),
    ("cpu, a member of a layer", r"cpu/layer_member\.(h|cpp)", r"cpu/(layer_member|rows|team)\.h|backend\.h"),
    ("cpu, unfused", r"cpu/unfused_layer\.(h|cpp)", rf"cpu/(layer_member|masks|unfused_layer)\.h|{BACKEND_VIEW}"),
    ("cpu, backward's panels", r"cpu/back_panels\.(h|cpp)", r"cpu/back_panels\.h|weights\.h"),
    (
        "cpu, backward's layer",
        r"cpu/back_layer\.(h|cpp)",
        rf"cpu/(back_layer|back_panels|rows|team)\.h|{BACKEND_VIEW}",
    ),
    ("cpu, backward's products", r"cpu/back_products\.(h|cpp)", r"cpu/(back_layer|back_products|masks)\.h"),
    (
        "cpu, backward's sums",
        r"cpu/unfused_sums\.(h|cpp)",
        r"cpu/(back_layer|unfused_layer|unfused_sums)\.h|unfused_step\.h",
    ),
    ("cpu, a member of backward", r"cpu/back_member\.(h|cpp)", r"cpu/(back_member|back_products)\.h"),
    (
        "cpu, unfused backward",
        r"cpu/unfused_backward\.(h|cpp)",
        r"cpu/(back_member|masks|unfused_backward|unfused_layer|unfused_sums)\.h|(backend|unfused_step)\.h",
    ),
    ("cpu, backward", r"cpu/cpu_backward\.cpp", r"cpu/(back_member|unfused_backward)\.h|cell_step\.h"),
    ("cpu, forward", r"cpu/cpu_backend\.cpp", r"cpu/(layer_member|unfused_layer)\.h|(arena|cell_step)\.h"),
    ("cpu", r"cpu/[^/]*", rf"{KERNEL_TABLE}|cpu/(dispatch|features|team)\.h|(backend|status)\.h"),
    ("cuda, values", r"cuda/(args|device|jobs|plan|shapes)\.h", r"cuda/(args|plan)\.h"),
    (
        "cuda, kernels",
        r"cuda/(cell|elementwise|product|recurrence)\.h",
        r"cuda/(args|cell|device|jobs|plan|product|shapes)\.h",
    ),
    ("cuda, errors", r"cuda/errors\.h", r"status\.h"),
    (
        "cuda, launches",
        r"cuda/launch(_recurrence)?\.h|cuda/\w+\.cu",
        r"cuda/(device|elementwise|errors|jobs|launch|launch_recurrence|plan|recurrence)\.h",
    ),
    (
        "cuda, layer",
        r"cuda/(back_layer|device_weights|layer|memory|plan|products)\.(h|cpp)",
        r"cuda/(args|device_weights|errors|jobs|layer|memory|plan|products|shapes)\.h|gru_core/gru_core_cuda\.h"
        r"|(arena|call|spec|status)\.h",
    ),
    (
        "cuda, sequences",
        r"cuda/(back_sequences|call_frames|sequences)\.(h|cpp)",
        r"cuda/(call_frames|device_weights|errors|jobs|layer|memory|sequences)\.h|call\.h",
    ),
    ("cuda, c_api", r"cuda/cuda_api\.cpp", r"cuda/(errors|sequences)\.h|(call|guard)\.h"),
    ("status", r"status\.h|spec\.h|parallel\.h", r""),
    ("guard", r"guard\.h", r"status\.h"),
    ("call", r"call\.(h|cpp)", r"(arena|call|spec|status)\.h"),
    ("arena", r"arena\.(h|cpp)", r"(arena|status)\.h"),
    ("spec, parallel", r"spec\.cpp|parallel\.cpp", r"spec\.h|parallel\.h|status\.h"),
    ("cell step", r"cell_step\.h", KERNEL_TABLE),
    ("reference", r"reference\.(h|cpp)", r"reference\.h|spec\.h"),
    ("norms' weights", r"norm_weights\.(h|cpp)", rf"{KERNEL_TABLE}|(arena|norm_weights|spec|status)\.h"),
    (
        "weights",
        r"weights\.(h|cpp)",
        rf"{KERNEL_TABLE}|cpu/dispatch\.h|(arena|call|norm_weights|spec|status|weights)\.h",
    ),
    ("unfused step", r"unfused_step\.h", r"weights\.h"),
    ("unfused tape", r"unfused_tape\.h", r"(arena|backend)\.h"),
    ("backend", r"backend\.h", r"parallel\.h|weights\.h"),
    ("state", r"state\.(h|cpp)", r"(arena|backend|cell_step|parallel|state|status|unfused_step|weights)\.h"),
    ("tape", r"tape\.(h|cpp)", r"(arena|backend|call|status|tape|unfused_tape)\.h"),
    ("forward", r"forward\.(h|cpp)", r"(arena|backend|call|forward|parallel|status|tape|weights)\.h"),
    (
        "backward",
        r"backward\.(h|cpp)",
        r"(arena|backend|backward|call|forward|parallel|status|tape|unfused_tape|weights)\.h",
    ),
    ("json", r"json\.(h|cpp)", r"(json|status)\.h"),
    ("model's spec", r"model_spec\.(h|cpp)", r"(json|model_spec|spec|status)\.h"),
    ("model file", r"model_file\.(h|cpp)", r"(json|model_file|model_spec|spec|status)\.h"),
    (
        "c_api",
        r"c_api\.cpp",
        r"cpu/dispatch\.h|(arena|backward|call|forward|guard|model_file|parallel|spec|state|status|tape|weights)\.h",
    ),
]


def test_includes_go_one_way() -> None:
    wrong = []
    for path in core_files():
        name = name_of(path)
        room = next(((r, allowed) for r, pattern, allowed in ROOMS if re.fullmatch(pattern, name)), None)
        assert room is not None, f"{name}: a new file needs a row in ROOMS"
        for target in own_includes(path):
            assert target.is_file(), f"{name} includes {target}"
            included = name_of(target)
            if not re.fullmatch(room[1], included):
                wrong.append(f"{name} ({room[0]}) includes {included}")
    assert wrong == []


def test_includes_have_no_cycle() -> None:
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " -> ".join(p.name for p in (*trail, path))
        if path not in done:
            for target in own_includes(path):
                visit(target, (*trail, path))
            done.add(path)

    for path in core_files():
        visit(path, ())


BINDINGS = {
    "core_module.cpp": {'"gru_core/gru_core.h"', '"spare_memory.h"'},
    "machine_module.cpp": {'"machine/limits.h"'},
    "cuda_module.cpp": {'"gru_core/gru_core_cuda.h"', '"device_memory.h"', '"dlpack.h"'},
}


def test_bindings_see_the_c_abi_alone() -> None:
    for path in sources("src/bindings"):
        own = [name for name in includes(path) if name.startswith('"') or "gru_core" in name]
        allowed = BINDINGS.get(path.name, {'"gru_core/gru_core.h"'})
        assert set(own) <= allowed, path.name
    for path in sources("python"):
        if path.suffix in {".pyx", ".pxd"}:
            headers = re.findall(r'cdef extern from "([^"]+)"', path.read_text())
            assert set(headers) <= {"gru_core/gru_core.h"}, path.name


# The room of the machine's limits: what each file may include of ours. Nothing in the core can include it: the files of
# the core include none that is outside.
MACHINE_ROOM = {
    "limits_table.h": r"",
    "limits_kernels.cpp": rf"machine/limits_table\.h|{SIMD}",
    "limits.h": r"",
    "limits.cpp": r"machine/limits(_table)?\.h|gru_core/gru_core\.h",
}


def test_machine_sees_the_vectors_and_the_c_abi_alone() -> None:
    files = sources("src/machine")
    assert {path.name for path in files} == set(MACHINE_ROOM)
    for path in files:
        own = [name.strip('"') for name in includes(path) if name.startswith('"')]
        assert [name for name in own if not re.fullmatch(MACHINE_ROOM[path.name], name)] == [], path.name


def test_the_public_header_needs_nothing() -> None:
    assert includes(HEADER) == ["<stddef.h>", "<stdint.h>"]


def test_the_fixed_size_header_needs_no_library() -> None:
    header = HEADER.with_name("gru_core_fixed.hpp")
    assert [name for name in includes(header) if name.startswith("<")] == ["<stdint.h>", "<string.h>", "<type_traits>"]
    own = [name.strip('"') for name in includes(header) if name.startswith('"')]
    assert [name for name in own if not re.fullmatch(rf"{SIMD}|gru_core/detail/cell\.h", name)] == []


def test_kernels_include_no_cpp_library() -> None:
    allowed = {"<stddef.h>", "<stdint.h>", "<immintrin.h>", "<arm_neon.h>"}
    library = {name for name in all_includes(CORE / "cpu" / "kernels.cpp") if name.startswith("<")}
    assert library <= allowed
    for path in [*(CORE / "cpu" / "kernels").iterdir(), CORE / "cpu" / "kernels.cpp"]:
        assert not [name for name in includes(path) if name.startswith("<")], path.name
    assert not [name for name in includes(MACHINE / "limits_kernels.cpp") if name.startswith("<")]
    assert includes(MACHINE / "limits_table.h") == ["<stdint.h>"]


# --- what stands where ------------------------------------------------------------------------------------------------

# Each thing: a pattern, and the only files of the core that may hold it.
ONLY_IN = {
    "openmp": (r"#\s*include\s*<omp\.h>|#\s*pragma\s+omp|\bomp_\w+", r"parallel\.cpp"),
    "try": (r"\b(try|catch)\b", r"guard\.h"),
    "intrinsics": (
        r"<(imm|x86|xmm|emm|zmm|avx)\w*intrin\.h>|<arm_neon\.h>|\b_mm\d*_\w+|\b__m(128|256|512)\w*"
        r"|\bv(ld|st|fma|bsl|dup|add|mul)\w*q_\w+|\b(float|u?int)\d+x\d+_t\b",
        SIMD,
    ),
    "CUDA": (r"\bcu(da|blas)[A-Z]\w*|\b__(global|device|shared)__", r"cuda/\w+\.(h|cpp|cu)"),
    "cpuid": (r"<cpuid\.h>|\b__cpuid\w*|\b__get_cpuid\w*|xgetbv", r"cpu/features\.cpp"),
    "printing": (r"<(iostream|ostream|fstream)>|\b(std::)?(printf|fprintf|puts|fputs|cout|cerr|clog|perror)\b", r""),
    "ending the process": (r"\b(abort|exit|_exit|quick_exit|terminate|assert)\s*\(|<cassert>", r""),
    "environment": (r"\bgetenv\b", r"cpu/dispatch\.cpp|cuda/plan\.cpp"),
    "throw": (r"\bthrow\b", r"arena\.(h|cpp)|status\.h|cpu/dispatch\.cpp|cuda/\w+\.(h|cpp)"),
    "heap": (r"\b(malloc|calloc|realloc|free)\s*\(|\bnew\b(?!>)", r"arena\.cpp"),
    "floating-point modes": (r"\b(fesetround|fesetenv|_MM_SET_\w+|_mm_setcsr)\b|fast-math|fp-model", r""),
}


@pytest.mark.parametrize("thing", ONLY_IN)
def test_each_thing_in_its_room(thing: str) -> None:
    pattern, home = ONLY_IN[thing]
    found = {name_of(p) for p in core_files() if re.search(pattern, code_of(p))}
    assert {name for name in found if not re.fullmatch(home, name)} == set()
    assert not home or found, "the pattern finds nothing even where it belongs"


def test_files_say_what_they_are() -> None:
    wrong = []
    for path in sources("src", "include", "python", "tests", "bench"):
        first = path.read_text().lstrip().split("\n")[0]
        python = path.suffix in {".py", ".pyi", ".pyx", ".pxd"}
        if not first.startswith(('"""', "#") if python else ("//", "/*", "# ")):
            wrong.append(path.relative_to(ROOT).as_posix())
    assert wrong == []


def test_files_are_small() -> None:
    files = sources("src", "include", "python", "tests", "bench")
    lengths = {p.relative_to(ROOT).as_posix(): p.read_text().count("\n") for p in files}
    most = {"include/gru_core/gru_core.h": 450}  # the whole C ABI, half of it comments
    assert {name: lines for name, lines in lengths.items() if lines > most.get(name, 400)} == {}


# --- the one version and the enums ------------------------------------------------------------------------------------


def test_versions_agree() -> None:
    found = re.findall(r'#define GRUC_VERSION "([^"]+)"', HEADER.read_text())
    assert found == [gru_c.__version__]
    changelog = ROOT / "CHANGELOG.md"
    if changelog.is_file():
        entries = re.findall(r"^## \[?(\d+\.\d+\.\d+)", changelog.read_text(), flags=re.MULTILINE)
        assert entries[:1] == found


def header_enum(prefix: str) -> dict[str, int]:
    """The constants of gru_core.h whose names start so: name without prefix, in small letters -> number."""
    text = re.sub(r"/\*.*?\*/", " ", HEADER.read_text(), flags=re.DOTALL)
    return {name.lower(): int(value) for name, value in re.findall(rf"\b{prefix}(\w+) = (\d+)", text)}


def test_enums_agree() -> None:
    body = re.search(
        r"typedef enum gruc_activation_kind \{(.*?)\} gruc_activation_kind;", HEADER.read_text(), re.DOTALL
    )
    assert body is not None
    kinds = {name.lower(): int(value) for name, value in re.findall(r"GRUC_(\w+) = (\d+)", body[1])}
    assert kinds == packing.KINDS
    assert header_enum("GRUC_RESET_") == packing.RESETS
    assert header_enum("GRUC_UPDATE_") == packing.UPDATES
    assert header_enum("GRUC_NORM_") == {name or "none": number for name, number in packing.NORM_KINDS.items()}
    # packing.pack and core_module.cpp use these as numbers.
    assert header_enum("GRUC_BIAS_") == {"none": 0, "input": 1, "hidden": 2, "both": 3}
    directions = header_enum("GRUC_")
    assert [directions[name] for name in ("forward", "reverse", "bidirectional")] == [0, 1, 2]
