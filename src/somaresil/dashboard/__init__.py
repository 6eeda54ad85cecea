"""A live page about a service, mounted in it: traffic, breakers, objectives, experiments, canaries and events of all its workers.

Pure ASGI, no framework, no build step. There is none without an authenticator::

    app.mount("/_soma", resilience.dashboard(auth=BearerToken(os.environ["DASHBOARD_TOKEN"], basic=True), challenge="basic"))

Whoever is not known gets the same 404 for everything. What changes something is a POST of somebody who may, from this site.
"""

from somaresil.dashboard.app import UNSAFE_OPEN, DashboardApp
from somaresil.mounted.auth import Authenticator, BearerToken

__all__ = ["UNSAFE_OPEN", "Authenticator", "BearerToken", "DashboardApp"]
