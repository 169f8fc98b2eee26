"""Downloads from a local server that breaks off, lies, forgets how to resume, or is not there."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from chorister.shared.errors import UsageError
from chorister.simulations import fetch
from chorister.simulations.fetch import ARCHIVES, Archive, FetchError, fetch_corpus

FILES = {
    "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac": np.random.default_rng(0).bytes(90_000),
    "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt": b"84-121123-0000 GO ON\n",
    "LibriSpeech/README.TXT": b"read me",
}


@dataclass
class Server:
    """A file server whose faults are set by each test.

    Attributes:
        content: what is served under any name.
        breaks: how many bytes each answer carries before it breaks off; then whole answers.
        ranges: whether Range is understood.
        wrong_range: whether a Range answer starts elsewhere.
        statuses: answer these first.
        requests: the Range header of each request.
    """

    content: bytes = b""
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    wrong_range: bool = False
    statuses: list[int] = field(default_factory=list)
    requests: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        start = 0
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            handler.send_response(206)
            told = start + 7 if self.wrong_range else start
            end = len(self.content)
            handler.send_header("Content-Range", f"bytes {told}-{end - 1}/{end}")
        else:
            handler.send_response(200)
        body = self.content[start:]
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.breaks.pop(0)] if self.breaks else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}/pool"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def tar_of(files: dict[str, bytes], edit: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if edit is not None:
                edit(entry)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def serving(server: Server, content: bytes, file: str = "a.tar.gz", root: str = "") -> Archive:
    server.content = content
    digest = hashlib.sha256(content).hexdigest()
    return Archive(server.url, file, len(content), digest, root, "public domain")


def librispeech(server: Server) -> Archive:
    return serving(server, tar_of(FILES), root="LibriSpeech/dev-clean")


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_download_verify_unpack(server: Server, tmp_path: Path) -> None:
    corpus = fetch_corpus("dev-clean", librispeech(server), tmp_path / "new" / "data")
    assert corpus == tmp_path / "new" / "data" / "dev-clean"
    for name, content in FILES.items():
        if name.startswith("LibriSpeech/dev-clean/"):
            assert (corpus / name.removeprefix("LibriSpeech/dev-clean/")).read_bytes() == content
    assert left_in(corpus.parent) == ["dev-clean"]
    assert server.requests == [None]


def test_a_corpus_that_is_there_is_left_alone(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    fetch_corpus("dev-clean", archive, tmp_path)
    fetch_corpus("dev-clean", archive, tmp_path)
    assert len(server.requests) == 1


def test_a_broken_connection_is_continued(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    server.breaks = [1000, 1, 0, 5000]
    assert fetch_corpus("dev-clean", archive, tmp_path).is_dir()
    starts = [0, 1000, 1001, 1001, 6001]
    assert server.requests == [None, *(f"bytes={start}-" for start in starts[1:])]


def test_a_server_without_range_starts_over(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    server.ranges = False
    server.breaks = [50_000, 20_000]
    assert fetch_corpus("dev-clean", archive, tmp_path).is_dir()
    assert server.requests == [None, "bytes=50000-", "bytes=20000-"]


def test_a_server_that_sends_another_range_spoils_nothing(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    server.breaks, server.wrong_range = [1000], True
    with pytest.raises(FetchError, match="another range"):
        fetch_corpus("dev-clean", archive, tmp_path)
    assert (tmp_path / ".a.tar.gz.part").read_bytes() == server.content[:1000]
    server.wrong_range = False
    assert fetch_corpus("dev-clean", archive, tmp_path).is_dir()


def test_it_gives_up_and_the_next_call_continues(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    server.breaks = [2000, *[0] * fetch.ATTEMPTS]
    with pytest.raises(FetchError, match=f"2000 of {archive.size} bytes"):
        fetch_corpus("dev-clean", archive, tmp_path)
    assert left_in(tmp_path) == [".a.tar.gz.part"]
    server.requests.clear()
    server.breaks.clear()
    fetch_corpus("dev-clean", archive, tmp_path)
    assert server.requests == ["bytes=2000-"]


def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    server.statuses = [503, 429, 500]
    assert fetch_corpus("dev-clean", archive, tmp_path).is_dir()


@pytest.mark.parametrize("status", [403, 404, 416])
def test_a_refusal_is_final(server: Server, tmp_path: Path, status: int) -> None:
    archive = librispeech(server)
    server.statuses = [status]
    with pytest.raises(FetchError, match=f"status {status}"):
        fetch_corpus("dev-clean", archive, tmp_path)
    assert len(server.requests) == 1 and not left_in(tmp_path)


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    archive = Archive("http://127.0.0.1:9", "a.tar.gz", 10, "", "", "none")
    with pytest.raises(FetchError, match="0 of 10 bytes"):
        fetch_corpus("dev-clean", archive, tmp_path)


def test_wrong_bytes_are_deleted(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    good = server.content
    server.content = good[:5000] + bytes([good[5000] ^ 1]) + good[5001:]
    with pytest.raises(FetchError, match="SHA-256"):
        fetch_corpus("dev-clean", archive, tmp_path)
    assert not left_in(tmp_path)
    server.content = good
    assert fetch_corpus("dev-clean", archive, tmp_path).is_dir()


def test_more_bytes_than_published(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    server.content += b"and more"
    with pytest.raises(FetchError, match="more than"):
        fetch_corpus("dev-clean", archive, tmp_path)
    assert "dev-clean" not in left_in(tmp_path)


def test_a_stale_part_that_is_too_long(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    (tmp_path / ".a.tar.gz.part").write_bytes(b"x" * (archive.size + 1))
    assert fetch_corpus("dev-clean", archive, tmp_path).is_dir()


def test_a_finished_part_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    archive = librispeech(server)
    (tmp_path / ".a.tar.gz.part").write_bytes(server.content)
    assert fetch_corpus("dev-clean", archive, tmp_path).is_dir()
    assert not server.requests


def linked(entry: tarfile.TarInfo) -> None:
    entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0


def device(entry: tarfile.TarInfo) -> None:
    entry.type, entry.size = tarfile.FIFOTYPE, 0


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.tar.gz", tar_of({"ok.wav": b"1", "../evil.wav": b"2"})),
        ("a.tar.gz", tar_of({"a/../../evil.wav": b"2"})),
        ("a.tar.gz", tar_of({"/evil.wav": b"2"})),
        ("a.tar.gz", tar_of({"a\\..\\evil.wav": b"2"})),
        ("a.tar.gz", tar_of({"C:evil.wav": b"2"})),
        ("a.tar.gz", tar_of({"link": b""}, linked)),
        ("a.tar.gz", tar_of({"pipe": b""}, device)),
        ("a.zip", zip_of({"ok.wav": b"1", "../evil.wav": b"2"})),
        ("a.zip", zip_of({"/evil.wav": b"2"})),
    ],
    ids=str.split("up above root backslash drive link device zip-up zip-root"),
)
def test_an_archive_that_reaches_outside(
    server: Server, tmp_path: Path, file: str, content: bytes
) -> None:
    with pytest.raises(FetchError, match="inside its own folder"):
        fetch_corpus("c", serving(server, content, file), tmp_path / "data")
    assert left_in(tmp_path) == ["data"]
    assert left_in(tmp_path / "data") == [f".{file}.part"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"no archive at all", "ReadError"),
        (tar_of(FILES)[:-2000], "EOFError"),
        (tar_of({"other/a.wav": b""}), "must hold the folder"),
        (tar_of({"a": b"1", "a/b": b"2"}), "Exists|Not a directory"),
    ],
    ids=["text", "cut off", "another folder", "a file as a folder"],
)
def test_an_archive_that_is_none(
    server: Server, tmp_path: Path, content: bytes, found: str
) -> None:
    with pytest.raises((FetchError, UsageError), match=found):
        fetch_corpus("c", serving(server, content, root="LibriSpeech"), tmp_path)
    assert left_in(tmp_path) == [".a.tar.gz.part"]


def test_a_zip_without_a_folder_of_its_own(server: Server, tmp_path: Path) -> None:
    files = {"wav48_silence_trimmed/p225/p225_001_mic1.flac": b"1", "txt/p225/p225_001.txt": b"2"}
    (tmp_path / "vctk").mkdir()
    corpus = fetch_corpus("vctk", serving(server, zip_of(files), "V.zip"), tmp_path)
    assert left_in(corpus) == ["txt", "wav48_silence_trimmed"]


def test_a_mirror(server: Server, tmp_path: Path) -> None:
    archive = replace(librispeech(server), base_url="http://127.0.0.1:9/nobody")
    assert fetch_corpus("dev-clean", archive, tmp_path, server.url + "/").is_dir()
    for url in ("file:///etc", "ftp://example.org", "example.org/pool", ""):
        with pytest.raises(UsageError, match="http"):
            fetch_corpus("other", replace(archive, base_url=url), tmp_path)


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--to"):
        fetch_corpus("dev-clean", librispeech(server), tmp_path / "file")


def test_a_disk_that_is_too_small(server: Server, tmp_path: Path) -> None:
    archive = replace(librispeech(server), size=10**18)
    with pytest.raises(UsageError, match="GB free"):
        fetch_corpus("dev-clean", archive, tmp_path)
    assert not server.requests


def test_the_known_archives_are_well_formed() -> None:
    assert sorted(ARCHIVES) == ["dev-clean", "test-clean", "vctk"]
    for archive in ARCHIVES.values():
        assert len(bytes.fromhex(archive.sha256)) == 32
        assert archive.base_url.startswith("https://") and "CC BY" in archive.licence
