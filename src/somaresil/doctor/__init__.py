"""What a service leaves out: calls without a guard, calls without an end, middleware in the wrong place, missing objectives, workers apart.

The command is ``somaresil doctor``. It reads files and runs none of them.
"""
