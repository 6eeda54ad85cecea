"""A real browser for the page of the dashboard; what needs it skips by name where it is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.browser.stub import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WATCH = """
document.addEventListener('securitypolicyviolation', event =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def browser():
    """Give Debian's Chromium, started once."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `nox -s browser`")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: `apt-get install chromium`, or run `nox -s browser` as root")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def stub():
    """Give a service of the test's own, which answers as the contract of the dashboard says."""
    with serving() as running:
        yield running


@pytest.fixture
def visit(browser):
    """Give a factory of pages; after the test none may have complained: no error on the console, no violated policy, no dialog."""
    contexts, told = [], []

    def open_page(address, *, width=1280, height=900, scheme="light", expected=(), **options):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **options)
        contexts.append(context)
        context.set_default_timeout(30_000)
        context.add_init_script(WATCH)
        page = context.new_page()

        def hear(kind, text):
            if not any(part in text for part in expected):
                told.append(f"{kind}: {text}")

        page.on("console", lambda message: hear(message.type, message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: hear("thrown", str(error)))
        page.on("dialog", lambda dialog: (hear("dialog", dialog.message), dialog.dismiss()))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert told == []
