"""Targets, by what they belong to."""
