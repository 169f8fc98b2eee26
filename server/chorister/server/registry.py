"""Versions of the shared adapter, each named by the digest of its content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.errors import BadWeights, UsageError
from chorister.shared.files import exclusive_lock, write_atomically
from chorister.shared.types import Adapter

INDEX = "versions.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """One version's place in the federation's history.

    Attributes:
        sha256: the adapter's digest, its name.
        parent: digest of the version that it was made from, None for the first.
        round_id: the round that made it, None for the first.
        survivors: how many clients' deltas are in that round's sum; 0 for the first.
        withdrawn: how many of those clients' speakers have withdrawn since. Who they are stands in
            the server's own list, not here: this one is handed out.
    """

    sha256: str
    parent: str | None
    round_id: str | None
    survivors: int
    withdrawn: int = 0


class Registry:
    """A folder of adapters, `DIGEST.safetensors` each, and the list of versions in order.

    Args:
        folder: created if absent.

    Raises:
        BadWeights: the list of versions is not one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.versions()

    def store(
        self, adapter: Adapter, *, parent: str | None, round_id: str | None, survivors: int
    ) -> AdapterVersion:
        """Write an adapter as the newest version and return its name.

        The file is whole on the disk before the list names it: a crash leaves the old list.

        Raises:
            BadWeights: values that are not finite float32, or of another layout than the parent's.
            UsageError: the parent is not the newest version.
            OSError: it could not be written; the list is as before.
        """
        name = adapter_digest(adapter)
        with exclusive_lock(self._folder / ".lock"):
            versions = self.versions()
            newest = versions[-1].sha256 if versions else None
            if parent != newest:
                raise UsageError(
                    "A new version is made from the newest one.",
                    f"a parent {_short(parent)} where {_short(newest)} is the newest",
                    "Run the round again from the newest version.",
                )
            if parent is not None and self.get(parent).spec != adapter.spec:
                raise BadWeights(
                    "All versions of a shared adapter have one layout.",
                    f"layout {adapter.spec[:12]}, not the parent's",
                    "Start a new registry for a new layout.",
                )
            metadata = {"format": str(FORMAT), "spec": adapter.spec}
            data = save({"values": adapter.values}, metadata=metadata)
            write_atomically(self._path(name), data, mode=0o644)
            version = AdapterVersion(name, parent, round_id, survivors)
            self._write_list([*versions, version])
        return version

    def get(self, sha256: str) -> Adapter:
        """Return a version's adapter, checked against its digest.

        Raises:
            BadWeights: no such file, not an adapter, or another content than its name says.
        """
        path = self._path(sha256)
        try:
            data = path.read_bytes()
            adapter = Adapter(load(data)["values"], _metadata(data)["spec"])
            sound = adapter_digest(adapter) == sha256
        except FileNotFoundError:
            raise BadWeights(
                "The registry holds every version that it lists.",
                f"no {path.name}",
                "Restore the file from a backup or from a device that has it.",
            ) from None
        except (SafetensorError, BadWeights, KeyError, ValueError):
            sound = False
        if not sound:
            raise _altered(path)
        return adapter

    def latest(self) -> AdapterVersion | None:
        """Return the newest version, None while there is none."""
        return next(reversed(self.versions()), None)

    def versions(self) -> tuple[AdapterVersion, ...]:
        """Return all versions, oldest first.

        Raises:
            BadWeights: the list is damaged.
        """
        path = self._folder / INDEX
        if not path.exists():
            return ()
        try:
            plain = json.loads(path.read_bytes())
            versions = tuple(AdapterVersion(**version) for version in plain["versions"])
            sound = plain["format"] == FORMAT
        except (ValueError, KeyError, TypeError):
            sound = False
        parents = [None, *(v.sha256 for v in versions)] if sound else []
        if not sound or any(v.parent != p for v, p in zip(versions, parents, strict=False)):
            raise BadWeights(
                f"{INDEX} lists the versions, each made from the one before.",
                "something else",
                "Restore it from a backup.",
            )
        return versions

    def truncate(self, sha256: str) -> None:
        """Forget the versions after one; their files stay.

        Raises:
            UsageError: no such version.
        """
        with exclusive_lock(self._folder / ".lock"):
            versions = self.versions()
            kept = [i for i, version in enumerate(versions) if version.sha256 == sha256]
            if not kept:
                raise UsageError(
                    "The registry goes back to a version that it lists.",
                    _short(sha256),
                    "See the list of versions.",
                )
            self._write_list(versions[: kept[-1] + 1])

    def note_withdrawn(self, counts: Mapping[str, int]) -> None:
        """Set how many speakers of each version have withdrawn since; 0 where none is given.

        Args:
            counts: version's digest to number of speakers.

        Raises:
            OSError: it could not be written; the list is as before.
        """
        with exclusive_lock(self._folder / ".lock"):
            versions = self.versions()
            noted = [replace(v, withdrawn=counts.get(v.sha256, 0)) for v in versions]
            if noted != list(versions):
                self._write_list(noted)

    def _write_list(self, versions: Iterable[AdapterVersion]) -> None:
        plain = {"format": FORMAT, "versions": [asdict(version) for version in versions]}
        data = json.dumps(plain, indent=1).encode()
        write_atomically(self._folder / INDEX, data, mode=0o644)

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise UsageError(
                "A version is named by 64 hexadecimal digits.",
                repr(sha256)[:80],
                "Give its digest.",
            )
        return self._folder / f"{sha256}.safetensors"


def _metadata(data: bytes) -> dict[str, Any]:
    # safetensors.numpy gives no access to the header of bytes: 8 bytes of length, then JSON.
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    return dict(metadata)


def _altered(path: Path) -> BadWeights:
    return BadWeights(
        "An adapter file holds what its name, a digest, says.",
        f"{path.name} with another content",
        "Restore the file from a backup or from a device that has it.",
    )


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"{sha256[:12]}…"
