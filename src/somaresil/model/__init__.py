"""The arithmetic of somaresil: pure models of breakers, windows, backoff, histograms, SLOs and selection.

Nothing in here reads a clock, draws chance, takes a lock, waits or does I/O. The time is an argument called ``now``, a random draw is an
argument called ``u``, and the same arguments always give the same result. This is what makes every model testable without waiting and
lets the same code serve the live service, a replayed log and a property test. An import contract keeps it so.
"""
