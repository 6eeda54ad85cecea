"""Two upstreams that say who they are, nginx and HAProxy before them, and a client that counts who has answered."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.integration.servers import HOST, Server, free_port


def find(name: str) -> str | None:
    """Give the path of a router; Debian keeps them in sbin."""
    return shutil.which(name) or shutil.which(f"/usr/sbin/{name}")


@contextmanager
def upstream(word: str):
    """Serve `word` on a loopback port, and give the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: else each answer waits for the client's delayed acknowledgement.
        wbufsize = -1

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(word)))
            self.end_headers()
            self.wfile.write(word.encode())

        def log_message(self, *_):
            pass

    class Many(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, *_):
            # A router that closes its idle connections is no news.
            pass

    with Many((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


class Nginx(Server):
    """Debian's nginx in a folder of its own, with two upstreams chosen by the weights file; needs no root."""

    def __init__(self, *, folder: Path, binary: str, stable: int, candidate: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.weights, self.conf, self.pid_file = folder / "canary.conf", folder / "nginx.conf", folder / "nginx.pid"
        port, probe = free_port(), free_port()
        self.probe = f"http://{HOST}:{probe}/order"
        temporary = "".join(f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if Path(binary).exists() and Path("/proc/self").stat().st_uid == 0 else ""
        self.conf.write_text(
            f"""{user} daemon off; worker_processes 2; pid {self.pid_file}; error_log {folder / "error.log"} notice;
            events {{ worker_connections 256; }}
            http {{
                access_log off; {temporary}
                include {self.weights};
                upstream stable {{ server {HOST}:{stable}; keepalive 16; }}
                upstream candidate {{ server {HOST}:{candidate}; keepalive 16; }}
                server {{
                    listen {HOST}:{port};
                    location / {{ proxy_pass http://$somaresil_upstream; proxy_http_version 1.1; proxy_set_header Connection ""; }}
                }}
                server {{ listen {HOST}:{probe}; location = /order {{ return 200 $somaresil_order; }} }}
            }}
            """,
            encoding="utf-8",
        )
        self.test = (binary, "-t", "-q", "-c", str(self.conf), "-e", str(folder / "error.log"))
        self.reload = (binary, "-c", str(self.conf), "-e", str(folder / "error.log"), "-s", "reload")
        super().__init__([binary, "-c", self.conf, "-e", folder / "error.log"], port=port, folder=folder)


class HAProxy(Server):
    """Debian's HAProxy with a master process, so that it can be reloaded, and a stats socket in its folder."""

    def __init__(self, *, folder: Path, binary: str, stable: int, candidate: int, rules: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.socket, self.conf = folder / "admin.sock", folder / "haproxy.cfg"
        port = free_port()
        lines = "".join(f"    {line}\n" for line in rules.splitlines())
        self.conf.write_text(
            f"""global
    stats socket {self.socket} level admin expose-fd listeners
    maxconn 500
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend in
    bind {HOST}:{port}
{lines}
backend stable
    server s1 {HOST}:{stable}
backend candidate
    server c1 {HOST}:{candidate}
""",
            encoding="utf-8",
        )
        super().__init__([binary, "-W", "-db", "-f", self.conf], port=port, folder=folder)

    def worker(self) -> str | None:
        """Give the number of the process that answers at the stats socket; None: nobody does now."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(self.socket))
            line.sendall(b"show info\n")
            with line.makefile() as answer:
                return next((text.split()[1] for text in answer if text.startswith("Pid:")), None)
        return None


def asked(port: int, count: int, *, headers: dict[str, str] | None = None, fresh: bool = False) -> Counter[str]:
    """Ask so many times and count who has answered; `fresh` makes a connection for each request."""
    answers: Counter[str] = Counter()
    connection = HTTPConnection(HOST, port, timeout=10)
    try:
        for _ in range(count):
            connection.request("GET", "/", headers=headers or {})
            answer = connection.getresponse()
            answers[answer.read().decode() if answer.status == 200 else f"status {answer.status}"] += 1
            if fresh:
                connection.close()
    finally:
        connection.close()
    return answers


@contextmanager
def load(port: int, threads: int = 4):
    """Ask all the time from several threads, and give the counter of who has answered and what went wrong."""
    over, total, lock = threading.Event(), Counter(), threading.Lock()

    def one():
        while not over.is_set():
            try:
                found = asked(port, 1)
            except OSError as error:
                found = Counter({f"error {error!r}": 1})
            with lock:
                total.update(found)

    running = [threading.Thread(target=one) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield total
    finally:
        over.set()
        for thread in running:
            thread.join(20)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a program and give what it wrote."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=30, check=False)
