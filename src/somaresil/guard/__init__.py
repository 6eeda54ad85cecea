"""Guard: composes policies around a callable, as one frame while nothing is wrong."""

from somaresil.guard.core import Guard
from somaresil.guard.keyed import Keyed
from somaresil.guard.options import GuardOptions

__all__ = ["Guard", "GuardOptions", "Keyed"]
