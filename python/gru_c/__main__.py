"""The command gru-c, also `python -m gru_c`: hands over to cli.py, or says in a line what is missing. By itself it
tells build systems where the C library is: `--cmakedir` and `--includedir`.
Must not import click or rich at the top: they are an extra, and this has to run without them.
"""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# Each option, and the folder that it prints, with a file that must be there.
FOLDERS = {
    "--cmakedir": (PACKAGE / "lib" / "cmake" / "gru_core", "gru_coreConfig.cmake"),
    "--includedir": (PACKAGE / "include", "gru_core/gru_core.h"),
}


def print_folder(option: str) -> None:
    folder, file = FOLDERS[option]
    if not (folder / file).is_file():
        sys.exit(f"gru-c: {option}: expected {file} in {folder}, where this installation of gru_c has none")
    sys.stdout.write(f"{folder}\n")


def main() -> None:
    if len(sys.argv) == 2 and sys.argv[1] in FOLDERS:
        print_folder(sys.argv[1])
        return
    try:
        from gru_c.cli import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich"):
            raise
        sys.exit(f"gru-c: the command line needs the package {error.name}: pip install gru-c[cli]")
    cli(prog_name="gru-c")


if __name__ == "__main__":
    main()
