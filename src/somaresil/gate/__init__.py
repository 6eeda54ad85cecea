"""The release gate of a pipeline, ``python -m somaresil gate``: it never takes an empty answer for a good one."""
