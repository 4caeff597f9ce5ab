"""scripts/cuda_spills.py: what it reads in a compiler's log, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "cuda_spills.py"


def report(name: str, architecture: int, stack: int = 0, spilled: int = 0) -> str:
    """As ptxas of CUDA 13.0 prints it."""
    return f"""ptxas info    : Compiling entry function '{name}' for 'sm_{architecture}'
ptxas info    : Function properties for {name}
    {stack} bytes stack frame, {spilled} bytes spill stores, {2 * spilled} bytes spill loads
ptxas info    : Used 248 registers, used 1 barriers, 1024 bytes smem, 380 bytes cmem[0]
ptxas info    : Compile time = 7.883 ms
"""


def answer(tmp_path: Path, log: str, *architectures: str) -> tuple[int, str]:
    (tmp_path / "log").write_text(f"[3/9] Building CUDA object\n{log}[4/9] Linking\n")
    command = [sys.executable, str(SCRIPT), str(tmp_path / "log"), "--kernels", "forward_kernel", "--architectures"]
    done = subprocess.run([*command, *architectures], check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_clean_kernels_pass(tmp_path: Path) -> None:
    log = report("_Z14forward_kernel4Args", 80) + report("_Z14forward_kernel4Args", 90) + report("_Z4copy4Args", 90)
    status, said = answer(tmp_path, log, "80", "90")
    assert (status, said.splitlines()[-1]) == (0, "2 kernels, none spills")
    assert "248 registers" in said
    assert "1024 shared" in said


def test_a_spill_is_refused(tmp_path: Path) -> None:
    log = report("_Z14forward_kernel4Args", 80) + report("_Z14forward_kernel4Args", 90, stack=8, spilled=8)
    status, said = answer(tmp_path, log, "80", "90")
    assert status == 1
    assert "sm_90: _Z14forward_kernel4Args: 8 bytes of stack frame, 24 of spills" in said
    assert "sm_80: _Z" not in said


def test_an_array_in_memory_is_refused(tmp_path: Path) -> None:
    status, said = answer(tmp_path, report("_Z14forward_kernel4Args", 80, stack=64), "80")
    assert status == 1
    assert "64 bytes of stack frame" in said


def test_other_kernels_may_spill(tmp_path: Path) -> None:
    log = report("_Z14forward_kernel4Args", 80) + report("_Z4copy4Args", 80, stack=8, spilled=8)
    assert answer(tmp_path, log, "80")[0] == 0


def test_a_function_that_a_kernel_calls_is_refused(tmp_path: Path) -> None:
    log = report("_Z14forward_kernel4Args", 80)
    log += "ptxas info    : Function properties for _Z5slowf\n"
    log += "    16 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n"
    status, said = answer(tmp_path, log, "80")
    assert status == 1
    assert "sm_80: _Z5slowf: 16 bytes" in said


def test_a_log_without_reports_is_refused(tmp_path: Path) -> None:
    status, said = answer(tmp_path, "ninja: no work to do.\n", "80")
    assert status == 1
    assert "no report of a kernel" in said


def test_a_missing_architecture_is_refused(tmp_path: Path) -> None:
    status, said = answer(tmp_path, report("_Z14forward_kernel4Args", 80), "80", "100")
    assert status == 1
    assert "sm_100: no report of 1 of 1 kernels, as _Z14forward_kernel4Args" in said
