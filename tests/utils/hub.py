"""A stand-in for a hub of files: a server that sends away, and the one that it sends to.

`/repo/NAME` of the hub answers with a redirect to a signed link of the CDN, on another port, which
is good for `lives` requests. What else the hub does is set by its attributes.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dassl.utils import download, web

PAGE = b"<!DOCTYPE html><html>Quota exceeded</html>"


class Hub:
    """The state of both servers.

    Attributes:
        files: name → content.
        token: what a request must bring; empty: nothing.
        lives: requests that a signed link is good for.
        cut: bytes after which the CDN closes a connection; None: it sends all.
        ranges: whether the CDN knows ranges.
        answers: codes that the hub gives first, one a request, instead of a redirect.
        headers: that go with these answers.
        page: whether a web page with code 200 comes in place of every file.
        asked: (server, path without signature, Range, Authorization) of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.token = ""
        self.lives = 1
        self.cut: int | None = None
        self.ranges = True
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.page = False
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        self.links: dict[str, int] = {}
        self.url = self.cdn = ""

    def tokens_of(self, server: str) -> set[str | None]:
        return {token for where, _, _, token in self.asked if where == server}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    name: str

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        path, _, link = self.path.partition("?")
        token = self.headers.get("Authorization")
        self.hub.asked.append((self.name, path, self.headers.get("Range"), token))
        self.answer_hub(path, token) if self.name == "hub" else self.answer_cdn(path, link)

    def answer_hub(self, path: str, token: str | None) -> None:
        hub = self.hub
        if hub.answers:
            return self.send(hub.answers.pop(0), b"no", **hub.headers)
        if hub.token and token != f"Bearer {hub.token}":
            return self.send(401, b"who are you")
        if path.startswith("/moved/"):  # a repository that was renamed: same server
            return self.send(307, b"", Location=path.replace("/moved/", "/repo/"))
        name = path.removeprefix("/repo/")
        if name not in hub.files:
            return self.send(404, b"no such file")
        if hub.page:
            return self.send(200, PAGE)
        link = f"signature-{len(hub.links)}"
        hub.links[link] = hub.lives
        self.send(302, b"", Location=f"{hub.cdn}/{name}?{link}")

    def answer_cdn(self, path: str, link: str) -> None:
        hub = self.hub
        hub.links[link] = hub.links.get(link, 0) - 1
        if hub.links[link] < 0:
            return self.send(403, b"<Error>expired</Error>")
        content = hub.files[path.lstrip("/")]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None or not hub.ranges:
            return self.send(200, content)
        start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        if start >= len(content):
            return self.send(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
        said = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        self.send(206, content[start : end + 1], **said)

    def send(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body if code not in (200, 206) else body[: self.hub.cut])


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Runs both servers on this machine; HF_TOKEN, which is not set, is for this hub alone."""
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub = Hub()
    with ExitStack() as stack:
        addresses = []
        for name in ("hub", "cdn"):
            handler = type("Handler", (_Handler,), {"hub": hub, "name": name})
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            server.handle_error = lambda *_: None  # the client may hang up
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            addresses.append(f"http://127.0.0.1:{server.server_port}")
        hub.url, hub.cdn = addresses
        monkeypatch.setattr(web, "TOKENS", {hub.url: "HF_TOKEN"})
        yield hub
