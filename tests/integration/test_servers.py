"""The helpers themselves: what they start is ready, what they stop is gone, what fails says why."""

from __future__ import annotations

import os
import sys

import pytest

from tests.integration.servers import HOST, Server, ServerFailedError, accepts, free_port


def test_a_server_is_ready_inside_the_block_and_gone_after_it(tmp_path):
    """The port answers inside; outside neither port nor process is left."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", HOST, "--directory", tmp_path]
    with Server(command, port=port, folder=tmp_path, ready="/") as server:
        pid = server.pid
        assert server.is_ready()
    assert not accepts(port)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_ends_early_fails_with_its_last_words(tmp_path):
    """The error carries the exit code and the log's tail."""
    server = Server([sys.executable, "-c", "raise SystemExit('no disk')"], port=free_port(), folder=tmp_path)
    with pytest.raises(ServerFailedError, match=r"(?s)ended with code 1.*no disk"):
        server.start()


def test_a_server_that_never_listens_is_stopped(tmp_path):
    """A start that takes too long fails and leaves no process behind."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    server = Server(command, port=free_port(), folder=tmp_path, start_timeout=0.3)
    with pytest.raises(ServerFailedError, match=r"not ready within 0\.3 s"):
        server.start()
    with pytest.raises(ServerFailedError, match="is not running"):
        _ = server.pid


@pytest.mark.server
def test_prometheus_scrapes_and_answers(prometheus, tmp_path):
    """A metrics page served on loopback is found again through PromQL."""
    (tmp_path / "metrics").write_text('# TYPE probe gauge\nprobe{kind="a"} 3\nprobe{kind="b"} 4\n', encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", HOST, "--directory", tmp_path]
    with Server(command, port=port, folder=tmp_path, ready="/metrics"):
        server = prometheus([f"{HOST}:{port}"])
        found = {labels["kind"]: value for labels, value in server.wait_for("probe")}
        assert found == {"a": 3.0, "b": 4.0}
        assert server.value("sum(probe)") == 7.0
        assert server.value("absent_metric") is None
        assert server.value("scalar(sum(probe))") == 7.0
        with pytest.raises(ServerFailedError, match="parse error"):
            server.query("sum(")
