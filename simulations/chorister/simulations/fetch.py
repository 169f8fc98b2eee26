"""Download a public corpus: resumable, verified before it is unpacked, and whole or not at all.

archive -> .part (resumed with HTTP Range) -> size and SHA-256 -> unpacked aside -> renamed
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO

from chorister.shared.console import Step, progress, say
from chorister.shared.errors import ChoristerError, UsageError

ATTEMPTS = 6
TIMEOUT_S = 60.0
_FIRST_PAUSE_S = 0.5
_BLOCK = 1 << 20
# Bytes unpacked for each byte of an archive; these corpora hold compressed audio.
_UNPACKED = 1.6


class FetchError(ChoristerError):
    """A corpus could not be downloaded, verified or unpacked; what is useful for a retry stays."""


@dataclass(frozen=True, slots=True)
class Archive:
    """One downloadable corpus.

    Attributes:
        base_url: folder that the file is in.
        file: name of the tar.gz or zip.
        size: bytes.
        sha256: digest of the file, hexadecimal.
        root: folder inside the archive that becomes the corpus; empty for all of it.
        licence: and whom to name.
    """

    base_url: str
    file: str
    size: int
    sha256: str
    root: str
    licence: str


_OPENSLR = "https://www.openslr.org/resources/12"
_LIBRISPEECH_LICENCE = "CC BY 4.0, LibriSpeech (Panayotov et al. 2015, openslr.org/12)"

# Sizes and digests as torchaudio checks them; the publishers' own MD5 sums belong to the same files
# (dev-clean 42e2234b..., test-clean 32fa31d2..., VCTK 8a6ba294...).
ARCHIVES: Mapping[str, Archive] = MappingProxyType(
    {
        "dev-clean": Archive(
            _OPENSLR,
            "dev-clean.tar.gz",
            337_926_286,
            "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
            "LibriSpeech/dev-clean",
            _LIBRISPEECH_LICENCE,
        ),
        "test-clean": Archive(
            _OPENSLR,
            "test-clean.tar.gz",
            346_663_984,
            "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
            "LibriSpeech/test-clean",
            _LIBRISPEECH_LICENCE,
        ),
        "vctk": Archive(
            "https://datashare.ed.ac.uk/bitstream/handle/10283/3443",
            "VCTK-Corpus-0.92.zip",
            11_747_302_977,
            "f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
            "",
            "CC BY 4.0, CSTR VCTK Corpus 0.92 (Yamagishi, Veaux and MacDonald 2019)",
        ),
    }
)


def fetch_corpus(name: str, archive: Archive, to: Path, base_url: str | None = None) -> Path:
    """Download, verify and unpack one corpus into `to`/`name`.

    An interrupted download continues where it stopped, in this call or the next. A corpus that is
    there already is left alone.

    Args:
        name: the corpus's folder.
        archive: what to download.
        to: folder to work in; created if missing.
        base_url: a mirror's folder instead of the archive's own, http or https.

    Returns:
        the corpus's folder.

    Raises:
        UsageError: `base_url` is no http address, or `to` cannot be written or is too full.
        FetchError: the server failed too often, the file has a wrong digest, or an entry of the
            archive would land outside its folder.
    """
    corpus = to / name
    if corpus.is_dir() and any(corpus.iterdir()):
        return corpus
    url = f"{(base_url or archive.base_url).rstrip('/')}/{archive.file}"
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(
            "A download address starts with http:// or https://.", url, "Correct --base-url."
        )
    part = to / f".{archive.file}.part"
    with _writing(to):
        to.mkdir(parents=True, exist_ok=True)
        if _size(part) > archive.size:
            part.unlink()
        _check_space(to, archive, part)
        _download(url, archive, part)
        _verify(archive, part)
        _unpack(archive, part, corpus)
        part.unlink()
    return corpus


def _download(url: str, archive: Archive, part: Path) -> None:
    """Bring `part` to its full size; every attempt that brings bytes allows further ones."""
    failures = 0
    with progress(f"Downloading {archive.file} (MB)", archive.size // _BLOCK) as step:
        step(_size(part) // _BLOCK)
        while (have := _size(part)) < archive.size:
            reason = _attempt(url, archive, part, step)
            if (now := _size(part)) == archive.size:
                return
            failures = 1 if now > have else failures + 1
            if failures >= ATTEMPTS:
                raise _gave_up(url, archive, f"{now} of {archive.size} bytes: {reason}")
            say(f"{reason[0].upper()}{reason[1:]}; trying again.")
            time.sleep(_FIRST_PAUSE_S * 2.0 ** (failures - 1))


def _attempt(url: str, archive: Archive, part: Path, step: Step) -> str:
    """Download once, from where `part` ends; return why the server stopped sending."""
    have = _size(part)
    headers = {"User-Agent": "chorister", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - checked by the caller
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            continued = answer.status == 206
            if continued and not _starts_at(answer.headers, have):
                return "the server sent another range than was asked for"
            total = have if continued else 0
            with part.open("ab" if continued else "wb") as file:
                while block := answer.read(_BLOCK):
                    total += len(block)
                    if total > archive.size:
                        raise _gave_up(url, archive, f"more than {archive.size} bytes")
                    file.write(block)
                    step()
            return "the server ended the file early"
    except urllib.error.HTTPError as error:
        if 400 <= error.code < 500 and error.code not in (408, 429):
            found = f"status {error.code} ({error.reason})"
            raise _gave_up(url, archive, found) from error
        return f"the server answered with status {error.code} ({error.reason})"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        return str(error) or type(error).__name__


def _gave_up(url: str, archive: Archive, found: str) -> FetchError:
    return FetchError(
        f"{archive.file} must be at its address with {archive.size} bytes.",
        f"{found}, from {url}",
        "Run the same command again later: it continues, or name a mirror with --base-url.",
    )


def _starts_at(headers: Mapping[str, str], have: int) -> bool:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == have


def _verify(archive: Archive, part: Path) -> None:
    digest = hashlib.sha256()
    with (
        part.open("rb") as file,
        progress(f"Verifying {archive.file} (MB)", archive.size // _BLOCK) as step,
    ):
        while block := file.read(_BLOCK):
            digest.update(block)
            step()
    if digest.hexdigest() != archive.sha256:
        part.unlink()
        raise FetchError(
            f"{archive.file} must have the published SHA-256 {archive.sha256}.",
            f"{digest.hexdigest()}; the file was deleted",
            "Run the command again, or use another mirror with --base-url.",
        )


def _unpack(archive: Archive, part: Path, corpus: Path) -> None:
    """Unpack into a folder aside, then rename: the corpus is never seen half-unpacked."""
    aside = corpus.with_name(f".{corpus.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with progress(f"Unpacking {archive.file} (files)", 0) as step:
            for name, content in _entries(part, archive.file):
                target = aside / _inside(name, archive.file)
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("xb") as file:
                    shutil.copyfileobj(content, file, _BLOCK)
                step()
        root = aside / archive.root
        if not root.is_dir():
            raise FetchError(
                f"{archive.file} must hold the folder {archive.root}.",
                "no such folder in it",
                "The archive changed; unpack it by hand and use --data.",
            )
        if corpus.is_dir():
            corpus.rmdir()
        root.rename(corpus)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, FileExistsError) as error:
        raise FetchError(
            f"{archive.file} must be a readable archive.",
            f"{type(error).__name__}: {error}",
            "Unpack it by hand and use --data.",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _entries(path: Path, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the regular files of an archive; folders are implied, links are refused."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if (entry.external_attr >> 16) & 0o170000 == 0o120000:
                    raise _unsafe(name, entry.filename)
                if not entry.is_dir():
                    yield entry.filename, archive.open(entry)
        return
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            if member.isdir():
                continue
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                raise _unsafe(name, member.name)
            yield member.name, content


def _inside(entry: str, archive: str) -> PurePosixPath:
    path = PurePosixPath(entry)
    if path.is_absolute() or ".." in path.parts or "\\" in entry or ":" in entry or not path.parts:
        raise _unsafe(archive, entry)
    return path


def _unsafe(archive: str, entry: str) -> FetchError:
    return FetchError(
        "An archive's entries are plain files inside its own folder.",
        f"{entry!r} in {archive}; nothing was unpacked",
        "Do not use this file; tell the project where it came from.",
    )


def _check_space(to: Path, archive: Archive, part: Path) -> None:
    needed = round(archive.size * (1.0 + _UNPACKED)) - _size(part)
    free = shutil.disk_usage(to).free
    if free < needed:
        raise UsageError(
            f"{archive.file} and what is in it need {needed / 1e9:.1f} GB.",
            f"{free / 1e9:.1f} GB free in {to}",
            "Free some space or choose another folder with --to.",
        )


@contextmanager
def _writing(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            "The folder for the corpus must be writable and have space.",
            f"{to}: {error.strerror or error}",
            "Choose another folder with --to.",
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
