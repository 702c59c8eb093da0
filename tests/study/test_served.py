"""The server of run folders: what it answers, what it refuses, and that no path leads out."""

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from command_line import run
from hypothesis import example, given
from hypothesis import strategies as st
from made_checkpoints import begun_run, checkpoint_of

from elision.common.printable import printable
from elision.study.served import TYPES, RunServer, opened, parts_of

SECRET = "what is outside of the folder"
INSIDE = {f"file{suffix}": f"inside {suffix}" for suffix in TYPES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, files of every kind, a secret outside, and the ways that could lead to it."""
    top = tmp_path_factory.mktemp("served")
    for outside in (top, top / "outside"):
        outside.mkdir(exist_ok=True)
        (outside / "secret.html").write_text(SECRET, encoding="utf-8")
        (outside / "report.html").write_text(SECRET, encoding="utf-8")
    runs = top / "runs"
    one = begun_run(runs / "a run")
    for name, text in INSIDE.items():
        (one / name).write_text(text, encoding="utf-8")
    (one / "trace.safetensors").write_text(SECRET, encoding="utf-8")
    (one / ".hidden.html").write_text(SECRET, encoding="utf-8")
    (one / "out.html").symlink_to(top / "secret.html")
    (one / "out").symlink_to(top / "outside")
    (one / "folder.html").mkdir()
    os.mkfifo(one / "pipe.html")
    (runs / "no-run").mkdir()
    (runs / "no-run" / "notes.html").write_text(SECRET, encoding="utf-8")
    (runs / "secret.json").write_text(SECRET, encoding="utf-8")
    return runs


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunServer]:
    with RunServer(folder, port=0) as found:
        thread = threading.Thread(
            target=found.serve_forever, kwargs={"poll_interval": 0.02}
        )
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def asked(
    server: RunServer, path: str, method: str = "GET", host: str = "localhost:1"
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for value in filter(None, host.split("|")):
        connection.putheader("Host", value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_the_list_is_a_page_and_json(server: RunServer) -> None:
    status, headers, body = asked(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'data-run="a run"' in body
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "connect-src 'self'" in policy
    assert policy.count("'sha256-") == 2
    assert policy.split("; base-uri")[0] in body.decode()
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = asked(server, "/runs.json?again")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    (only,) = json.loads(body)
    assert only["run"] == "a run"
    assert only["cells"]["state"]["text"] == "killed"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("suffix", TYPES)
def test_known_kinds_of_files_have_their_type_and_run_nothing(
    server: RunServer, suffix: str
) -> None:
    path = f"/files/a%20run/file{suffix}"
    status, headers, body = asked(server, path)
    assert (status, body.decode()) == (200, INSIDE[f"file{suffix}"])
    assert headers["Content-Type"] == TYPES[suffix]
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "connect-src" not in policy
    assert ("sandbox" in policy) == (suffix != ".html")
    head = asked(server, path, "HEAD")
    assert head[:1] + head[2:] == (200, b"")
    assert head[1]["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    "path",
    [
        "/files/secret.json",  # in the folder, and in no run
        "/files/no-run/notes.html",
        "/files/a%20run/trace.safetensors",
        "/files/a%20run/.hidden.html",
        "/files/a%20run/out.html",
        "/files/a%20run/out/secret.html",
        "/files/a%20run/folder.html",
        "/files/a%20run/pipe.html",
        "/files/a%20run/",
        "/files/a%20run",
        "/files/../secret.html",
        "/files/a%20run/../../secret.html",
        "/files/a%20run/%2e%2e/%2e%2e/secret.html",
        "/files/a%20run/..%2f..%2fsecret.html",
        "/files/a%20run/..%5c..%5csecret.html",
        "/files//etc/passwd.html",
        "/files/%2fetc/x.html",
        "/files/a%20run/%00.html",
        "/files/a%20run/%ff.html",
        "/files/a%20run/file.html/",
        "/files/a%2520run/file.html",
        "//localhost/files/a%20run/file.html",
        "http://localhost/files/a%20run/file.html",
        "/../secret.html",
        "/report.html",
        "*",
    ],
)
def test_what_is_none_of_the_runs_is_not_found(server: RunServer, path: str) -> None:
    status, headers, body = asked(server, path)
    assert (status, body) == (404, b"404 Not Found\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:9", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("[::1", 403),
        ("", 403),
        ("localhost|evil.example", 403),
    ],
)
def test_a_name_that_another_page_could_have_bound_is_refused(
    server: RunServer, host: str, status: int
) -> None:
    for path in ("/", "/runs.json", "/files/a%20run/file.html"):
        found, _, body = asked(server, path, host=host)
        assert found == status
        assert (b"inside .html" in body) == (
            status == 200 and path.startswith("/files")
        )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_get_and_head_are_answered(server: RunServer, method: str) -> None:
    status, headers, _ = asked(server, "/files/a%20run/file.html", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert asked(server, "/", "FETCH")[0] == 501


#: Pieces of paths that lead out, in the ways that addresses can say them.
_PIECES = st.sampled_from(
    [
        *("..", ".", "", "%2e%2e", ".%2E", "%2e", "..%2f", "%2f", "%5c", "\\", "%00"),
        *(
            "a run",
            "a%20run",
            "out",
            "out.html",
            "secret.html",
            "report.html",
            "%c0%ae",
        ),
        *(
            "file.html",
            "file.json",
            ".hidden.html",
            "outside",
            "etc",
            "passwd",
            "~",
            "%",
        ),
        *(
            "trace.safetensors",
            "pipe.html",
            "no-run",
            "notes.html",
            "%25%32%65",
            "\u2025",
        ),
    ]
)


_PATHS = st.lists(_PIECES | st.text(max_size=3), max_size=6)


@given(path=(_PATHS | _PATHS.map(lambda path: ["a run", *path])).map("/".join))
@example(path="a run/file.html")
def test_no_path_leads_out(folder: Path, path: str) -> None:
    parts = parts_of(path)
    if parts is None:
        return
    try:
        with opened(folder, parts) as file:
            text = file.read().decode()
    except (OSError, ValueError):
        return
    place = folder.joinpath(*parts)
    assert place.resolve().is_relative_to(folder.resolve())
    assert not any(p.is_symlink() for p in (place, *place.parents) if p != folder)
    assert text == place.read_text("utf-8")


@given(names=st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_an_address_names_the_path_that_it_was_made_of(names: list[str]) -> None:
    parts = parts_of(quote("/".join([*names, "x.html"]), errors="surrogatepass"))
    if parts is not None:
        assert "/".join(parts) == "/".join([*names, "x.html"])
        assert not any(part.startswith(".") for part in parts)


def test_a_run_that_goes_on_is_seen_and_a_slow_reader_hinders_nobody(
    server: RunServer, folder: Path
) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)) as silent:
        silent.sendall(b"GET /")
        checkpoint_of(folder / "a run", "dense", 0.5, 0.625)
        server.watch._seen = None
        (only,) = json.loads(asked(server, "/runs.json")[2])
    assert only["cells"]["score"]["text"] == "62.5 % test accuracy"
    assert only["cells"]["epochs"]["text"] == "2 of 8"


def test_a_port_that_is_taken_is_replaced_by_a_free_one(
    server: RunServer, folder: Path
) -> None:
    with RunServer(folder, port=server.server_port) as second:
        assert second.server_port not in (0, server.server_port)
        assert second.server_address[0] == "127.0.0.1"
        assert second.url == f"http://127.0.0.1:{second.server_port}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("serve nothing", "nothing: no such folder"),
        ("serve . --port 65536", "serve(port=65536): must be an integer"),
        ("serve . --host 192.0.2.1 --port 0", "host '192.0.2.1': "),
        ("serve . --host no.such.host.invalid", "host 'no.such.host.invalid': "),
    ],
)
def test_what_cannot_be_served_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(line) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"elision: {said}")


def test_an_interruption_ends_it_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: RunServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunServer, "serve_forever", interrupted)
    assert run(f"serve {folder} --port 0") == 0
    found = capsys.readouterr()
    assert "http://127.0.0.1:" in found.out
    assert found.out.splitlines()[-1] == "elision: served until here"
    assert found.err == ""


@pytest.mark.parametrize("name", [b"odd\xff", "turned\u202e".encode(), b"two\nlines"])
def test_a_name_that_cannot_be_shown_leaves_the_list_whole(
    tmp_path: Path, name: bytes
) -> None:
    odd = tmp_path / os.fsdecode(name)
    odd.mkdir()
    (odd / "report.html").write_text("made", encoding="utf-8")
    with RunServer(tmp_path, port=0) as server:
        threading.Thread(target=server.handle_request).start()
        status, _, page = asked(server, "/")
        threading.Thread(target=server.handle_request).start()
        (only,) = json.loads(asked(server, "/runs.json")[2])
    assert status == 200
    shown = printable(os.fsdecode(name))
    assert only["run"] == only["cells"]["run"]["text"] == shown
    assert only["cells"]["report"] == {"text": "", "value": None}
    assert f'data-run="{shown}"' in page.decode()
