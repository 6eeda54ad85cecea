"""The tests; a package, so that helpers such as `tests.integration.servers` are found before any installed `tests`."""
