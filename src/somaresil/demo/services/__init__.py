"""The services, one module each with ``build(settings) -> ASGI application``.

::

    load ──> gateway ──worker.call──> worker ──llm.invoke──> model
                │ ├──────llm.stream (tokens)───────────────────┘
                └─memory.write──> memory (SQLite)

Names on the arrows are guards. The experiments strike the three of the gateway; the model needs nobody's help to fail now and then.
"""
