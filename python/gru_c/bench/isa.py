"""--isa: holds gru_c and the peers to one instruction set, before any is imported, and says who really kept to it.
Must not import a peer, except in a process of its own.

What was tried (Nov 2026, AMD with AVX-512): OpenVINO obeys oneDNN's switch, as the names of its kernels show, and
OV_CPU_MAX_ISA for its own. PyTorch obeys ATEN_CPU_CAPABILITY for its own kernels; its matrix products are MKL's, whose
switch works on Intel's CPUs alone: on others it chooses by itself. ONNX Runtime has no switch at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import gru_c

if TYPE_CHECKING:
    from gru_c.bench.candidates import Peer

_VARIABLES: Final = (
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "OV_CPU_MAX_ISA",
)
_VALUES: Final = {
    "avx512": ("avx512", "AVX512", "AVX512_CORE", "AVX512_CORE", "AVX512_CORE"),
    "avx2": ("avx2", "AVX2", "AVX2", "AVX2", "AVX2"),
    "portable": ("default", "SSE4_2", "SSE41", "SSE41", "SSE41"),
}
# "neon" has no entry: nothing is above it, and these switches are of x86.
# How MKL names what it uses, in the first line that MKL_VERBOSE has it print.
_MKL_NAMES: Final = {"avx512": "(Intel(R) AVX-512)", "avx2": "(Intel(R) AVX2)", "portable": "(Intel(R) SSE4.2)"}


def hold(isa: str, packages: Iterable[str]) -> list[str]:
    """Sets the variables; returns which of `packages` were imported already and will not see them.

    Raises:
        ValueError: no ISA that gru_c has on this machine; the message names those.
    """
    supported = gru_c.supported_isas()
    if isa not in supported:
        raise ValueError(f"--isa: expected one of {', '.join(supported)}, got {isa!r}")
    os.environ["GRUC_ISA"] = isa
    if isa in _VALUES:
        os.environ.update(zip(_VARIABLES, _VALUES[isa], strict=True))
    return [package for package in packages if package in sys.modules]


def kept(isa: str, peers: Mapping[str, Peer], late: Iterable[str]) -> dict[str, str | None]:
    """For every peer None where it runs nothing above the ISA, else what it does; `late`: those imported before."""
    if isa == gru_c.supported_isas()[0]:
        return dict.fromkeys(peers)  # nothing is above it here
    return {name: "it was imported before" if name in late else peer.held_to(isa) for name, peer in peers.items()}


def variables() -> Mapping[str, str]:
    """Those that are set, by `hold` or by the user."""
    return {name: os.environ[name] for name in ("GRUC_ISA", *_VARIABLES) if name in os.environ}


def mkl_keeps_to(isa: str) -> str | None:
    """None where MKL says that it keeps to the ISA, else what it says; asked in a process of its own."""
    code = "import torch; a = torch.ones(64, 64); a @ a"
    environment = os.environ | {"MKL_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith("MKL_VERBOSE") and "oneMKL" in line]
    if said and _MKL_NAMES[isa] in said[0]:
        return None
    if not said:
        return "its matrix products did not say what they run"
    what = said[0].partition("architecture ")[2].partition(",")[0]
    return f"its matrix products are MKL's, which chooses for itself here ({what})"
