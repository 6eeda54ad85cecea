"""``python -m somaresil``: the command line."""

from __future__ import annotations

from somaresil.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
