"""Settings: what is said about guards outside the code, in files and variables, and the changes that follow from it."""

from somaresil.settings.live import Settings, Unused

__all__ = ["Settings", "Unused"]
