"""Canaries: a new version beside the one that is known, judged on what both of them did."""
