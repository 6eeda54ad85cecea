"""The command ``somaresil perf``: results compared, kept, held against budgets, and measured in pairs."""
