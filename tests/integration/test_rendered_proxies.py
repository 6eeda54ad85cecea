"""What is rendered for nginx and HAProxy, checked and run by them, with the routers that write the other half."""

from __future__ import annotations

import pytest

from somaresil import CanaryConfig
from somaresil.canary.render import RenderOptions, render
from somaresil.integrations.haproxy import HAProxyWeights
from somaresil.integrations.nginx import NginxWeights
from tests.integration.routing import HAProxy, asked, find, run, upstream
from tests.integration.servers import HOST, Server, free_port

pytestmark = pytest.mark.server

CONFIG = CanaryConfig(name="gateway", bad="availability", steps=[0.05, 10, 100])


@pytest.fixture
def folder(tmp_path):
    """Give the folder that stands for /etc; what is rendered has to name a file there."""
    for name in ("nginx", "haproxy"):
        (tmp_path / name / "canary").mkdir(parents=True)
    return tmp_path


def test_nginx_runs_what_is_rendered_for_it(folder):
    """With a key, and with the smallest share that it can say."""
    binary = find("nginx")
    if binary is None:
        pytest.skip("nginx is not installed: `apt-get install nginx-light`, or run `nox -s tests` as root")
    port, probe = free_port(), free_port()
    options = RenderOptions(name="gateway", port=port, stable="old", candidate="new", key="$http_x_user")
    text = render("nginx", CONFIG, options).replace("/etc/", f"{folder}/").replace("127.0.0.1:8081", f"{HOST}:{probe}")
    conf, log, pid = folder / "nginx.conf", folder / "error.log", folder / "nginx.pid"
    command = (binary, "-c", str(conf), "-e", str(log))
    router = NginxWeights(
        folder / "nginx" / "canary" / "gateway.conf",
        stable="old",
        candidate="new",
        key="$http_x_user",
        test=(*command, "-t", "-q"),
        reload=(*command, "-s", "reload"),
        probe=f"http://{HOST}:{probe}/canary",
    )
    before = NginxWeights(router._path, stable="old", candidate="new", key="$http_x_user", test=("true",), reload=("true",))
    before.start("v2")
    with upstream("old") as old, upstream("new") as new:
        conf.write_text(
            f"""daemon off; pid {pid}; error_log {log}; events {{ }}
            http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
            uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            upstream old {{ server {HOST}:{old}; }} upstream new {{ server {HOST}:{new}; }}
            {text} }}""",
            encoding="utf-8",
        )
        assert run(*command, "-t", "-q").returncode == 0, log.read_text(encoding="utf-8")
        with Server(command, port=port, folder=folder):
            router.set_weight(0.0005)
            assert router.status().weight == 0.0005
            router.promote()
            assert asked(port, 20, headers={"X-User": "somebody"}) == {"new": 20}


@pytest.mark.parametrize("key", [None, "req.cook(user)", "src"])
def test_haproxy_runs_what_is_rendered_for_it(folder, key):
    """By chance, by a cookie, by an address."""
    binary = find("haproxy")
    if binary is None:
        pytest.skip("haproxy is not installed: `apt-get install haproxy`, or run `nox -s tests` as root")
    text = render("haproxy", CONFIG, RenderOptions(name="gateway", key=key)).replace("/etc/", f"{folder}/")
    path = folder / "haproxy" / "canary" / "gateway.map"
    HAProxyWeights(path, name="gateway", socket=None).start("v2")
    with upstream("old") as old, upstream("new") as new:
        server = HAProxy(folder=folder / "run", binary=binary, stable=old, candidate=new, rules=text)
        checked = run(binary, "-c", "-f", server.conf)
        assert checked.returncode == 0, checked.stderr
        assert "WARNING" not in checked.stderr
        with server:
            router = HAProxyWeights(path, name="gateway", socket=server.socket)
            router.set_weight(0.0005)
            assert router.status().weight == 0.0005
            router.set_weight(1.0)
            assert asked(server.port, 20, headers={"Cookie": "user=somebody"}) == {"new": 20}
            router.abort("it fails")
            assert asked(server.port, 20, headers={"Cookie": "user=somebody"}) == {"old": 20}
