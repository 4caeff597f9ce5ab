"""The command gru-c, also `python -m gru_c`: hands over to cli.py, or says in a line what is missing.
Must not import click or rich at the top: they are an extra, and this has to run without them.
"""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from gru_c.cli import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich"):
            raise
        sys.exit(f"gru-c: the command line needs the package {error.name}: pip install gru-c[cli]")
    cli(prog_name="gru-c")


if __name__ == "__main__":
    main()
