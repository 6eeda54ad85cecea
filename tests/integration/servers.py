"""Real servers for tests: started as child processes on free loopback ports, probed until ready, stopped by their own process id."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST = "127.0.0.1"


def free_port() -> int:
    """Give a loopback port that nobody listens on now."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Tell whether something accepts TCP connections on this loopback port."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


def answers(url: str) -> bool:
    """Tell whether this URL answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as response:
            return 200 <= response.status < 300
    except OSError:
        return False


class ServerFailedError(RuntimeError):
    """A server did not start or did not become ready; the message ends with the last lines it wrote."""


class Server:
    """One server process, alive inside the `with` block.

    Args:
        command: The program and its arguments.
        port: The loopback port it listens on.
        folder: Where its log goes.
        ready: A path such as `/-/ready` that must answer with success; without one, an accepted TCP connection is enough.
        environment: The whole environment of the process; without one it inherits ours.
        start_timeout: Seconds until it must be ready.
        stop_timeout: Seconds between the polite stop and the hard one.
        user: As whom it runs; without one as we do.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        port: int,
        folder: Path,
        ready: str | None = None,
        environment: Mapping[str, str] | None = None,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
        user: str | None = None,
    ) -> None:
        self.command = [str(part) for part in command]
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.log = folder / f"{Path(self.command[0]).name}-{port}.log"
        self._ready = ready
        self._environment = environment
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; an error when it does not run."""
        if self._process is None:
            message = f"{self.command[0]} is not running"
            raise ServerFailedError(message)
        return self._process.pid

    def tail(self, lines: int = 20) -> str:
        """Give the last lines the server wrote."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def is_ready(self) -> bool:
        """Probe once."""
        return accepts(self.port) if self._ready is None else answers(self.url + self._ready)

    def start(self) -> None:
        """Start the process and return when it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._environment, user=self._user
            )
        deadline = time.monotonic() + self._start_timeout
        while True:
            code = self._process.poll()
            if code is not None:
                self._process = None
                self._fail(f"ended with code {code} before it was ready")
            if self.is_ready():
                return
            if time.monotonic() > deadline:
                self.stop()
                self._fail(f"was not ready within {self._start_timeout:g} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """End this process, politely first, and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _fail(self, problem: str) -> None:
        message = f"{' '.join(self.command)} {problem}; its last lines:\n{self.tail()}"
        raise ServerFailedError(message)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Prometheus(Server):
    """Debian's Prometheus with a database of its own, scraping the given targets every second.

    Args:
        targets: Either `host:port` strings, all in the job `somaresil`, or a mapping from job name to such strings, or whole
            `scrape_configs`.
        folder: Where configuration, database and log go.
        binary: The program; see `find_prometheus`.
        metrics_path: What is scraped on each target.
        rules: The text of a rule file, if any, or several by their names.
        scrape_interval: Seconds between scrapes and between rule evaluations.
        history: A file of OpenMetrics text with timestamps: what it knows when it starts.
        alertmanager: The `host:port` of the Alertmanager that is told of alerts.
        features: What is to be enabled, such as `exemplar-storage`.
    """

    def __init__(
        self,
        targets: Sequence[str] | Sequence[Mapping[str, Any]] | Mapping[str, Sequence[str]],
        *,
        folder: Path,
        binary: str = "prometheus",
        metrics_path: str = "/metrics",
        rules: str | Mapping[str, str] | None = None,
        scrape_interval: int = 1,
        history: Path | None = None,
        alertmanager: str | None = None,
        features: Sequence[str] = (),
    ) -> None:
        whole = [target for target in targets if not isinstance(target, str)] if not hasattr(targets, "items") else []
        jobs: dict[str, Sequence[str]] = {"somaresil": targets} if not hasattr(targets, "items") else dict(targets.items())
        configuration: dict[str, Any] = {
            "global": {"scrape_interval": f"{scrape_interval}s", "evaluation_interval": f"{scrape_interval}s"},
            "scrape_configs": whole
            or [
                {"job_name": job, "metrics_path": metrics_path, "static_configs": [{"targets": list(members)}]}
                for job, members in jobs.items()
            ],
        }
        folder.mkdir(parents=True, exist_ok=True)
        if rules is not None:
            files = {"rules.yml": rules} if isinstance(rules, str) else rules
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
            configuration["rule_files"] = list(files)
        if alertmanager is not None:
            configuration["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        file = folder / "prometheus.yml"
        # JSON is YAML, so nothing has to be installed to write it.
        file.write_text(json.dumps(configuration, indent=2), encoding="utf-8")
        if history is not None:
            promtool = Path(binary).with_name("promtool")
            # One block: by itself it makes one of two hours at a time, and reads the whole file for each.
            made = [promtool, "tsdb", "create-blocks-from", "--max-block-duration=960h", "openmetrics", history, folder / "data"]
            subprocess.run(made, check=True, capture_output=True, timeout=120)
        port = free_port()
        command = [
            binary,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=400d",
            f"--web.listen-address={HOST}:{port}",
            "--log.level=warn",
            *(f"--enable-feature={feature}" for feature in features),
        ]
        super().__init__(command, port=port, folder=folder, ready="/-/ready")

    def api(self, endpoint: str, **parameters: str) -> Any:
        """Ask the HTTP API, and give the `data` of its answer."""
        url = f"{self.url}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10.0) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                message = f"{url}: {error.read().decode(errors='replace')}"
            raise ServerFailedError(message) from None
        return answer["data"]

    def query(self, promql: str, *, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Evaluate an instant query; give the labels and the value of each series. A scalar has no labels."""
        data = self.api("query", query=promql, **({} if at is None else {"time": f"{at:.3f}"}))
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, promql: str) -> float | None:
        """Evaluate a query that gives one number, or none as long as there is no data."""
        result = self.query(promql)
        if not result:
            return None
        ((_, value),) = result
        return value

    def wait_for(self, promql: str, *, timeout: float = 15.0) -> list[tuple[dict[str, str], float]]:
        """Give the result of a query as soon as it is not empty."""
        deadline = time.monotonic() + timeout
        while not (result := self.query(promql)):
            if time.monotonic() > deadline:
                message = f"no data for {promql} within {timeout:g} s; targets: {json.dumps(self.api('targets'))}"
                raise ServerFailedError(message)
            time.sleep(0.1)
        return result


def find_prometheus() -> str | None:
    """Give the path of the Prometheus binary, if it is installed."""
    return shutil.which("prometheus")


class VictoriaMetrics(Server):
    """Debian's VictoriaMetrics with a database of its own, which scrapes nothing: it is told.

    Args:
        folder: Where its database and log go.
        binary: The program; see `find_victoria_metrics`.
    """

    def __init__(self, *, folder: Path, binary: str = "victoria-metrics") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        # What is older than a month it would not take in otherwise.
        kept = "-retentionPeriod=100d"
        command = [binary, f"-storageDataPath={folder / 'data'}", f"-httpListenAddr={HOST}:{port}", kept, "-loggerLevel=ERROR"]
        super().__init__(command, port=port, folder=folder, ready="/health")

    def tell(self, text: bytes) -> None:
        """Take in samples, in Prometheus' text format with timestamps in milliseconds, and know them at once."""
        for path, data in (("/api/v1/import/prometheus", text), ("/internal/force_flush", None)):
            with urllib.request.urlopen(self.url + path, data=data, timeout=60.0) as response:
                response.read()


def find_victoria_metrics() -> str | None:
    """Give the path of the VictoriaMetrics binary, if it is installed."""
    return shutil.which("victoria-metrics")


class Alertmanager(Server):
    """Debian's Alertmanager, which sends every alert to one webhook at once, and again when it is over.

    Args:
        webhook: Where to.
        folder: Where configuration, state and log go.
        binary: The program; see `find_alertmanager`.
        configuration: The text of its configuration instead, which says by itself whom to tell.
    """

    def __init__(self, webhook: str, *, folder: Path, binary: str = "prometheus-alertmanager", configuration: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "alertmanager.yml"
        route = {
            "receiver": "webhook",
            "group_by": ["slo", "severity"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        }
        receivers = [{"name": "webhook", "webhook_configs": [{"url": webhook, "send_resolved": True}]}]
        file.write_text(configuration or json.dumps({"route": route, "receivers": receivers}), encoding="utf-8")
        port = free_port()
        command = [
            binary,
            f"--config.file={file}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]
        super().__init__(command, port=port, folder=folder, ready="/-/ready")


def find_alertmanager() -> str | None:
    """Give the path of the Alertmanager binary, if it is installed."""
    return shutil.which("prometheus-alertmanager")


class Redis(Server):
    """Debian's Redis, which keeps nothing: what it knew is gone when it is stopped.

    Args:
        folder: Where its log goes; it writes nothing else.
        binary: The program; see `find_redis`.
        port: Where to listen, when that must be where it listened before.
    """

    def __init__(self, *, folder: Path, binary: str = "redis-server", port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port() if port is None else port
        quiet = ["--save", "", "--appendonly", "no", "--dir", folder, "--loglevel", "warning"]
        super().__init__([binary, "--bind", HOST, "--port", str(port), *quiet], port=port, folder=folder)
        self.url = f"redis://{HOST}:{port}/0"

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def find_redis() -> str | None:
    """Give the path of the Redis server, if it is installed."""
    return shutil.which("redis-server")


def find_postgres() -> Path | None:
    """Give the folder of the PostgreSQL programs, if it is installed; Debian keeps them out of the path."""
    places = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


class Postgres(Server):
    """A PostgreSQL of its own, which lets everybody from this machine in and loses everything with its folder.

    It refuses to run as root, so then it runs as the user that its Debian package has made.

    Args:
        folder: Where its data and log go; its user must be able to reach it.
        programs: Where its programs are; see `find_postgres`.
    """

    def __init__(self, *, folder: Path, programs: Path) -> None:
        port = free_port()
        data = folder / "data"
        as_user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if as_user:
            shutil.chown(folder, **as_user)
        made = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **as_user)
        quick = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-k", folder]
        super().__init__([programs / "postgres", "-D", data, "-p", str(port), *quick], port=port, folder=folder, user=as_user.get("user"))
