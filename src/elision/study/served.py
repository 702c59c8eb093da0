"""A server of run folders on this machine: their list, live, and the files in them.

It only reads. The standard library's server is not meant for the open network; this one is
bound to the loopback address unless told otherwise, answers GET and HEAD only, maps no
address to a path but by the steps of :func:`opened`, and runs nothing.
"""

import errno
import ipaddress
import json
import os
import socket
import socketserver
import stat
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from elision.common.printable import printable
from elision.study.page.runs import FILES, LIVE, run_cells, runs_page
from elision.study.page.template import policy
from elision.study.watched import Watch

__all__ = ["TYPES", "RunServer", "opened", "parts_of"]

#: Types of the files that are served, by their suffix; no other is.
TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".toml": "application/toml",
}

#: Seconds for which a connection may say nothing, and most connections at once (own
#: choices): a page and its list take one each.
_SILENT_SECONDS, _MOST = 10, 32

#: Bytes of a file that are sent at once (own choice).
_BLOCK = 2**16

#: No page of another place shows, sends to or reads what is here.
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NOWHERE = "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

#: Policy of what is no page of this library: nothing in it runs.
_INERT = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


class RunServer(ThreadingHTTPServer):
    """The server of a folder; ``serve_forever`` answers until it is interrupted.

    Args:
        folder: whose runs are listed.
        host: address or name that it is bound to.
        port: the next free one is taken where this one is not free; 0: any free one.

    Raises:
        ValueError: there is no such folder, or the address is not this machine's.
        OSError: no port can be had.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RunServer(Path(folder), port=0) as server:
        ...         print(server.url.rpartition(":")[0])
        http://127.0.0.1
    """

    daemon_threads = True

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 8000) -> None:
        self.watch = Watch(folder)
        self.host = host
        self._free = threading.BoundedSemaphore(_MOST)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ValueError(f"host {host!r}: {error.strerror or error}") from error
        self.address_family, address = found[0][0], str(found[0][4][0])
        try:
            super().__init__((address, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ValueError(f"host {host!r}: {error.strerror}") from error
            if error.errno != errno.EADDRINUSE:
                raise
            super().__init__((address, 0), _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server who this is."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    @property
    def url(self) -> str:
        """Address of the list."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or close where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a reader who went away, and in one line what else failed."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"elision: not answered: {error!r}", file=sys.stderr, flush=True)

    def admits(self, hosts: Sequence[str]) -> bool:
        """Whether a request was meant for this server, by its headers ``Host``.

        A page of another place whose name was bound to this address (DNS rebinding) sends
        that name; an address, or the name that this machine has for itself, cannot be bound.
        """
        if len(hosts) != 1:
            return False
        try:
            name = urlsplit(f"//{hosts[0]}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self.host.lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class _Handler(BaseHTTPRequestHandler):
    server: RunServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = _SILENT_SECONDS
    server_version, sys_version = "elision", ""

    def do_GET(self) -> None:
        """Answer with headers and body."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer with the headers that GET has."""
        self._answer()

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = (
        _refuse
    )

    def _answer(self) -> None:
        if not self.server.admits(self.headers.get_all("Host") or []):
            self.send_error(HTTPStatus.FORBIDDEN, "not this server's name")
            return
        watch, path = self.server.watch, self.path.partition("?")[0]
        if path == "/":
            page = runs_page(watch.folder, watch.runs())
            self._send(page.encode(), TYPES[".html"], policy(LIVE))
        elif path == "/runs.json":
            runs = [
                {"run": printable(run.path), "cells": run_cells(run, watch.folder.name)}
                for run in watch.runs()
            ]
            self._send(json.dumps(runs).encode(), TYPES[".json"], _INERT)
        else:
            self._send_file(path)

    def _send_file(self, path: str) -> None:
        parts = parts_of(path.removeprefix(FILES)) if path.startswith(FILES) else None
        try:
            if parts is None or not self._in_a_run(parts):
                raise FileNotFoundError
            file = opened(self.server.watch.folder, parts)
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            suffix = PurePosixPath(parts[-1]).suffix.lower()
            size = os.fstat(file.fileno()).st_size
            rules = policy() if suffix == ".html" else _INERT
            self._send_head(size, TYPES[suffix], rules)
            if self.command == "GET":
                while size and (data := file.read(min(size, _BLOCK))):
                    self.wfile.write(data)
                    size -= len(data)  # however long the file becomes

    def _in_a_run(self, parts: Sequence[str]) -> bool:
        """Whether a path is one of a run that is listed."""
        path = "/".join(parts)
        return any(
            not run.path or path.startswith(f"{run.path}/")
            for run in self.server.watch.runs()
        )

    def _send(self, body: bytes, kind: str, rules: str) -> None:
        self._send_head(len(body), kind, rules)
        if self.command == "GET":
            self.wfile.write(body)

    def _send_head(
        self,
        size: int,
        kind: str,
        rules: str,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Security-Policy", rules + _NOWHERE)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Refuse in one line of plain text, which repeats nothing of the request."""
        del explain
        status = HTTPStatus(code)
        known = message if status == HTTPStatus.FORBIDDEN else None
        body = f"{status.value} {known or status.phrase}\n".encode()
        self.close_connection = True
        self._send_head(len(body), "text/plain; charset=utf-8", _INERT, status)
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: a terminal shows the address and no more."""


def parts_of(path: str) -> list[str] | None:
    """The names on the way to a file, from an address; None for one that is none's.

    Args:
        path: below a folder, percent-encoded.

    Returns:
        Names without ``.``, ``..``, hidden ones, empty ones and control characters, the
        last of a suffix in :data:`TYPES`.

    Example:
        >>> parts_of("a%20b/report.html"), parts_of("a/..%2f..%2fb.html")
        (['a b', 'report.html'], None)
    """
    try:
        parts = unquote(path, errors="strict").split("/")
    except UnicodeDecodeError:
        return None
    for part in parts:
        if not part or part.startswith(".") or not part.isprintable() or "\\" in part:
            return None
    return parts if PurePosixPath(parts[-1]).suffix.lower() in TYPES else None


def opened(folder: Path, parts: Sequence[str]) -> BinaryIO:
    """Open a file below a folder for reading, step by step, following no link.

    Whatever happens to the folders meanwhile, the file is one below the first.

    Args:
        folder: the top, which may be reached by links.
        parts: of :func:`parts_of`.

    Raises:
        OSError: there is no such plain file, or it is a link or behind one.
    """
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(
                part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place
            )
            os.close(place)
            place = below
        # A pipe has no writer to wait for, and is no plain file.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(parts[-1], flags, dir_fd=place)
    finally:
        os.close(place)
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise FileNotFoundError(parts[-1])
    return file
