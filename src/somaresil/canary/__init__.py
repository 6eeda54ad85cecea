"""Canaries: a candidate beside its control, judged by the bad events of objectives."""
