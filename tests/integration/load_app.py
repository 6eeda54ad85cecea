"""A service to put under load: plain ASGI, one path for each thing that can happen."""

import asyncio
import json

MARK = (b"x-somaresil-chaos", b"exp-1")
WORKERS = 4
SERVICE = 0.02
busy = asyncio.Semaphore(WORKERS)
counts = {}


async def answer(send, status=200, body=b'{"ok":true}', headers=()):
    kind = (b"content-type", b"application/json")
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def stream(send, events, pause=0.02, end=True):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(events):
        await asyncio.sleep(pause)
        await send({"type": "http.response.body", "body": b"data: token%d\n\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n" if end else b""})


async def echo(scope, receive, send, body):
    said = {name.decode(): value.decode() for name, value in scope["headers"]}
    await answer(send, body=json.dumps({"method": scope["method"], "body": body.decode("latin-1"), "headers": said}).encode())


async def torn(scope, receive, send, body):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: token\n\n", "more_body": True})
    raise ConnectionError("torn on purpose")


async def endless(scope, receive, send, body):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: token\n\ndata: [DONE]\n\n", "more_body": True})
    await receive()


async def workers(scope, receive, send, body):
    async with busy:
        await asyncio.sleep(SERVICE)
    await answer(send)


async def metrics(scope, receive, send, body):
    good = counts.get("/ok", 0)
    text = f'somaresil_sli_events_total{{slo="up",outcome="good"}} {good}\nsomaresil_slo_objective_ratio{{slo="up"}} 0.9\n'
    await answer(send, body=text.encode())


PATHS = {
    "/echo": echo,
    "/counts": lambda scope, receive, send, body: answer(send, body=json.dumps(counts).encode()),
    "/bad": lambda scope, receive, send, body: answer(send, 503),
    "/struck": lambda scope, receive, send, body: answer(send, 503, headers=[MARK]),
    "/sse": lambda scope, receive, send, body: stream(send, 10),
    "/cut": lambda scope, receive, send, body: stream(send, 3, end=False),
    "/torn": torn,
    "/endless": endless,
    "/hang": lambda scope, receive, send, body: receive(),
    "/workers": workers,
    "/metrics": metrics,
    "/ok": lambda scope, receive, send, body: answer(send),
}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    counts[path] = counts.get(path, 0) + 1
    if scope["type"] == "websocket":
        await talk(path, receive, send)
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await PATHS[path](scope, receive, send, body)


async def talk(path, receive, send):
    await receive()
    if path == "/refuses":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "websocket.accept"})
    asked = await receive()
    for number in range(5):
        await asyncio.sleep(0.01)
        await send({"type": "websocket.send", "text": f"{asked.get('text')} {number}"})
    if path != "/ws-cut":
        await send({"type": "websocket.send", "text": "end"})
        await receive()
    else:
        await send({"type": "websocket.close", "code": 1011})
