"""What is installed, and what is known against it: inventory, bill of materials, advisories, licences, and a gate.

The command is ``somaresil scan``. Every package that is there was looked up, or the answer is "not known": skipped is not passed. Needs
``pip install "somaresil[scan]"``.
"""
