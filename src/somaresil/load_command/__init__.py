"""The command `somaresil load`."""
