"""Run the live demo as a command."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from somaresil.demo.live.run import run
from somaresil.demo.main import carry_out
from somaresil.top_command import TOKEN

if TYPE_CHECKING:
    from typing import TextIO

    from somaresil.demo.live import LiveOptions
    from somaresil.demo.live.run import Place

__all__ = ["main"]


class Lines:
    """Says where it is: to people, or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        """``as_json``: one line on stdout, everything else on stderr."""
        self._as_json = as_json
        self._stream: TextIO = sys.stderr if as_json else sys.stdout

    def note(self, text: str) -> None:
        """One line."""
        print(text, file=self._stream, flush=True)

    def ready(self, place: Place) -> None:
        """Where it is, with the token: it is good for this run on this machine."""
        if self._as_json:
            print(json.dumps(place.as_dict()), flush=True)
            return
        self.note(f"\ndashboard  {place.url}")
        self.note(f"user       {place.actor}")
        self.note(f"password   {place.token}")
        self.note(f"service    {place.service}")
        self.note(f"\non a shell {TOKEN}={place.token} python -m somaresil top {place.url}")
        self.note("\nCtrl-C ends it.")


def main(options: LiveOptions) -> int:
    """Run it.

    Returns 0 when the time is over, 2 when it could not be run, and 128 + n after signal n. In every case its processes, ports and files
    are gone when this returns.
    """

    async def perform() -> int:
        await run(options, Lines(as_json=options.json))
        return 0

    return carry_out(perform)
