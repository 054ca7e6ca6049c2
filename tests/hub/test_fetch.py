"""Downloads against a server on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scfound_atac.hub._fetch import PINS_FILE, fetch
from scfound_atac.hub.registry import FileEntry, ModelEntry

CONTENT = {"weights.bin": b"w" * 100_000, "config.json": b"{}"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server:
    """Serves `content`; says that a body is `missing` bytes longer than it is; counts requests."""

    def __init__(self) -> None:
        self.content = dict(CONTENT)
        self.missing = 0
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.removeprefix("/")
                outer.requests.append(name)
                body = outer.content.get(name)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body) + outer.missing))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def make_registry(url: str, *, pinned: bool) -> dict[str, ModelEntry]:
    files = {name: FileEntry(f"{url}/{name}", sha256(body) if pinned else None) for name, body in CONTENT.items()}
    return {"tiny": ModelEntry("tiny", "a model", "MIT", "here", "1", "ChromFound", None, files)}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("pinned", [True, False])
def test_fetch_and_then_offline(server: Server, tmp_path: Path, pinned: bool) -> None:
    registry = make_registry(server.url, pinned=pinned)
    folder = fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    assert folder == tmp_path / "tiny"
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert names(folder) == set(CONTENT) | (set() if pinned else {PINS_FILE})
    assert sorted(server.requests) == sorted(CONTENT)

    server.requests.clear()
    assert fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False) == folder
    assert server.requests == []


def test_cached_when_the_server_is_gone(tmp_path: Path) -> None:
    server = Server()
    registry = make_registry(server.url, pinned=True)
    folder = fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    server.stop()
    assert fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False) == folder

    (folder / "config.json").unlink()
    with pytest.raises(ConnectionError, match=r"config\.json.*copy it here by hand.*tiny.*config\.json"):
        fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    (folder / "config.json").write_bytes(CONTENT["config.json"])  # by hand, as the message says
    assert fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False) == folder


def test_cache_dir_of_the_settings(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCFOUND_ATAC_CACHE_DIR", str(tmp_path / "cache"))
    folder = fetch("tiny", registry=make_registry(server.url, pinned=True))
    assert folder == tmp_path / "cache" / "tiny"


def test_wrong_hash(server: Server, tmp_path: Path) -> None:
    server.content["weights.bin"] = b"other"
    registry = make_registry(server.url, pinned=True)
    with pytest.raises(ValueError, match=f"expected sha256 {sha256(CONTENT['weights.bin'])}, got {sha256(b'other')}"):
        fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    assert names(tmp_path / "tiny") == set()


@pytest.mark.parametrize("pinned", [True, False])
def test_truncated(server: Server, tmp_path: Path, pinned: bool) -> None:
    server.missing = 1000
    with pytest.raises(ConnectionError, match="Could not download"):
        fetch("tiny", cache_dir=tmp_path, registry=make_registry(server.url, pinned=pinned), progress=False)
    assert names(tmp_path / "tiny") == set()


def test_not_found(server: Server, tmp_path: Path) -> None:
    del server.content["weights.bin"]
    with pytest.raises(ConnectionError, match="404"):
        fetch("tiny", cache_dir=tmp_path, registry=make_registry(server.url, pinned=True), progress=False)
    assert names(tmp_path / "tiny") == set()


@pytest.mark.parametrize("pinned", [True, False])
def test_damaged_cache_is_repaired(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, pinned: bool
) -> None:
    registry = make_registry(server.url, pinned=pinned)
    folder = fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    (folder / "weights.bin").write_bytes(b"damaged")
    fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    assert (folder / "weights.bin").read_bytes() == CONTENT["weights.bin"]
    assert "damaged or of another version" in caplog.text


def test_change_after_first_download_is_refused(server: Server, tmp_path: Path) -> None:
    registry = make_registry(server.url, pinned=False)
    folder = fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    pins = json.loads((folder / PINS_FILE).read_text())
    assert pins == {name: sha256(body) for name, body in CONTENT.items()}

    server.content["weights.bin"] = b"changed"
    (folder / "weights.bin").unlink()
    with pytest.raises(ValueError, match="first downloaded on this machine.*To accept the new file, delete the folder"):
        fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    assert not (folder / "weights.bin").exists()
    assert json.loads((folder / PINS_FILE).read_text()) == pins

    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()  # what the message says
    fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False)
    assert (folder / "weights.bin").read_bytes() == b"changed"


def test_file_put_by_hand_is_pinned(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "weights.bin").write_bytes(b"mine")
    folder = fetch("tiny", cache_dir=tmp_path, registry=make_registry(server.url, pinned=False), progress=False)
    assert server.requests == ["config.json"]
    assert json.loads((folder / PINS_FILE).read_text())["weights.bin"] == sha256(b"mine")


@pytest.mark.parametrize("content", ["{", "[1]", "null"])
def test_unreadable_pins(server: Server, tmp_path: Path, content: str) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / PINS_FILE).write_text(content)
    with pytest.raises(ValueError, match="Delete the folder to download anew"):
        fetch("tiny", cache_dir=tmp_path, registry=make_registry(server.url, pinned=False), progress=False)


@pytest.mark.parametrize("pinned", [True, False])
def test_concurrent(server: Server, tmp_path: Path, pinned: bool) -> None:
    registry = make_registry(server.url, pinned=pinned)
    with ThreadPoolExecutor(8) as pool:
        folders = set(
            pool.map(lambda _: fetch("tiny", cache_dir=tmp_path, registry=registry, progress=False), range(16))
        )
    assert folders == {tmp_path / "tiny"}
    assert names(tmp_path / "tiny") - {PINS_FILE} == set(CONTENT)
    assert (tmp_path / "tiny" / "weights.bin").read_bytes() == CONTENT["weights.bin"]


def test_bundled_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("scfound_atac.hub.registry.BUNDLED_DIR", tmp_path)
    entry = ModelEntry("inside", "a model", "MIT", "here", "1", "ChromFound", "inside")
    with pytest.raises(FileNotFoundError, match="Install scfound-atac again"):
        fetch("inside", registry={"inside": entry})
    (tmp_path / "inside").mkdir()
    assert fetch("inside", registry={"inside": entry}) == tmp_path / "inside"


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="Did you mean 'tiny'"):
        fetch("tinny", cache_dir=tmp_path, registry=make_registry("http://127.0.0.1", pinned=True))
    assert names(tmp_path) == set()
