"""The command ``somaresil init``: the middleware and an objective for an app that is there, after showing what is changed."""
