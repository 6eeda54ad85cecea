"""What a pod shows of itself: one JSON document, for a judge that scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.config import Checker
from somaresil.mounted.request import Doorkeeper, check_authenticator, live
from somaresil.mounted.wire import Answer, problem

if TYPE_CHECKING:
    from somaresil.canary.telling import EvidenceTeller
    from somaresil.mounted.auth import Authenticator
    from somaresil.mounted.request import Receive, Scope, Send
    from somaresil.resilience import Resilience

__all__ = ["EvidenceApp", "evidence_app"]


def evidence_app(teller: EvidenceTeller, *, resilience: Resilience, auth: Authenticator) -> EvidenceApp:
    """An ASGI application that answers each ``GET`` with what ``teller`` has to tell. Mount it at ``/evidence``.

    Whoever is not known gets 401. Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    return EvidenceApp(teller, resilience, auth)


class EvidenceApp:
    """See :func:`evidence_app`."""

    def __init__(self, teller: EvidenceTeller, resilience: Resilience, auth: Authenticator) -> None:
        """Check everything."""
        check = Checker("evidence_app")
        if not callable(getattr(teller, "tell", None)):
            check.problem("teller", teller, "an EvidenceTeller")
        check_authenticator(check, "auth", auth, "BearerToken(secret), or a function of the scope")
        check.finish()
        self._teller = teller
        self._resilience = resilience
        self._door = Doorkeeper(auth, "evidence app", resilience.clock, resilience.listeners)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            answer = await self._answer(scope)
            for message in answer.messages(head=scope["method"] == "HEAD"):
                await send(message)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "lifespan":
            await live(receive, send)

    async def _answer(self, scope: Scope) -> Answer:
        if await self._door.who(scope) is None:
            return Answer(401, "who is this?", headers=[(b"www-authenticate", b"Bearer")])
        if scope["method"] not in {"GET", "HEAD"}:
            return problem(405, "GET, HEAD here", headers=[(b"allow", b"GET, HEAD")])
        try:
            return Answer(200, self._teller.tell())
        except Exception as defect:  # noqa: BLE001 - never into the server: what it would say to that is not ours
            self._resilience.listeners.defect("evidence app", defect, self._resilience.clock.time(), "the request was answered with 500")
            return problem(500, "a defect of the evidence app; it was reported")
