"""The code-free bundle: all that a server may send a device to run, byte for byte.

A Flower App Bundle (FAB) is a ZIP archive that a SuperNode unpacks and puts first on its path, so
that whatever code it holds would run on the device. Ours names two components of the installed
package and holds nothing else. It is made here, uncompressed, so that its digest is the same on
every machine: a device compares the digest and needs to read no server's archive at all.
"""

from __future__ import annotations

import hashlib
import io
import zipfile

SERVER_APP = "chorister.server.app:app"
CLIENT_APP = "chorister.client.app:app"
# Part of the digest: raised when what a bundle says changes, and published in docs/deploy.md.
BUNDLE_VERSION = "1.0.0"
BUNDLE_SHA256 = "890854ee24653355a0979f3280c0175ffe610afebb1ee543b9954b8c04909498"
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)
_PYPROJECT = f"""\
[project]
name = "chorister"
version = "{BUNDLE_VERSION}"
description = "Names the installed components of Chorister; holds no code"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "chorister"

[tool.flwr.app.components]
serverapp = "{SERVER_APP}"
clientapp = "{CLIENT_APP}"
"""


def make_bundle() -> bytes:
    """Return the bundle as Flower's FAB: `pyproject.toml` and the list of its digests.

    The command `chorister server bundle` writes it; `BUNDLE_SHA256` is its digest.
    """
    project = _PYPROJECT.encode()
    listed = f"pyproject.toml,{hashlib.sha256(project).hexdigest()},{len(project) * 8}"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, data in (("pyproject.toml", project), (".info/CONTENT", listed.encode())):
            info = zipfile.ZipInfo(name, _FIXED_DATE)
            info.create_system = 3  # the same header on every operating system
            info.external_attr = 0o644 << 16
            file.writestr(info, data)
    return archive.getvalue()


def bundle_digest(bundle: bytes) -> str:
    """Return a bundle's name: the SHA-256 that Flower calls its hash."""
    return hashlib.sha256(bundle).hexdigest()
