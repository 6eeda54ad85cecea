"""Chaos by HTTP: a JSON application that starts, shows and ends experiments of this process, for whoever it knows.

Pure ASGI, no framework. There is none without an authenticator, whoever is not known gets the same 404 for everything, and what changes
something is a POST that no page of another site can make a browser send::

    app.mount("/_soma/chaos", chaos_control(resilience, auth=BearerToken(os.environ["CHAOS_TOKEN"])))

It allows nothing by itself: experiments need the permission that they need in code, and stay below the ceilings that were set there.
"""

from somaresil.control.app import ControlApp, chaos_control
from somaresil.mounted.auth import Authenticator, BearerToken

__all__ = ["Authenticator", "BearerToken", "ControlApp", "chaos_control"]
