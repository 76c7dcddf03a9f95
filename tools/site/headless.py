"""Chromium without a window, and a local server for it: shared by the checks of built pages and by the browser tests."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # a page that is closed leaves answers half read


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a local server of this folder, without a slash at its end."""
    with _Server(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def program() -> str | None:
    """The Chromium of this machine; None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium():
    """A Chromium without a window. Raises FileNotFoundError if there is none on this machine."""
    if program() is None:
        raise FileNotFoundError("no Chromium here: apt install chromium")
    with _driver() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=program(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


_drivers = []


@contextmanager
def _driver():
    """Playwright, which can be started only once at a time: a browser within another one's time shares its driver."""
    from playwright.sync_api import sync_playwright

    if _drivers:
        yield _drivers[0]
        return
    with sync_playwright() as driver:
        _drivers.append(driver)
        try:
            yield driver
        finally:
            _drivers.clear()
