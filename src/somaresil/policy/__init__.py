"""Policies, one module each: frozen options, behaviour, nothing of another policy.

A policy is ``async def __call__(inner, call)`` and waits only through ``call.runtime``, so that it serves synchronous and asynchronous
calls alike. Nothing is held across ``await inner(call)`` but the permit that the policy is about.
"""
