"""A federation to put load on: authority, server folder and as many certified devices as wanted.

Everything is as `authority init`, `server init`, `membership` and `server admit` make it, but for
the voices: nobody speaks here, so there are no vaults, and the adapter has as many values as is
asked for instead of a layout that a voice model knows.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chorister.client.consent import give
from chorister.client.consent_record import ConsentRecord
from chorister.client.secagg_checks import Acceptance
from chorister.server import tls
from chorister.server.authority import Authority
from chorister.server.members import admit
from chorister.server.registry import Registry
from chorister.server.server_folder import ServerFolder
from chorister.shared import codec
from chorister.shared.enrolment import PossessionProof
from chorister.shared.files import write_atomically
from chorister.shared.node_key import NodeKey
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.privacy.speaker_level import largest_delta
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import Adapter

CHORISTER = "import sys; from chorister.shared.cli import main; sys.exit(main())"
FEDERATION = "load"
LIFE_S = 86_400
LOOPBACK = "127.0.0.1"
# The digest of no layout: a device that has a voice model would not know what to do with it.
LAYOUT = "10ad" * 16


@dataclass(frozen=True, slots=True)
class Member:
    """One device without a voice.

    Attributes:
        key: its identity.
        node_key: of its connection.
        certificate: the authority's word.
        consent: its signed record, as any device has one.
    """

    key: SigningKey
    node_key: NodeKey
    certificate: Certificate
    consent: ConsentRecord

    def to_bytes(self) -> bytes:
        """Return the member, secrets included, for a file of this test and nothing else."""
        return codec.encode(
            {
                "key": self.key.secret_bytes(), "node_key": self.node_key.secret_bytes(),
                "certificate": self.certificate.to_plain(), "consent": self.consent.to_plain(),
            }
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Member:
        """Return the member that `to_bytes` wrote."""
        plain = codec.decode(data)
        return cls(
            SigningKey(plain["key"]), NodeKey(plain["node_key"]),
            Certificate.from_plain(plain["certificate"]),
            ConsentRecord.from_plain(plain["consent"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Town:
    """Paths of a federation under load.

    Attributes:
        root: of all files.
    """

    root: Path

    @property
    def server(self) -> ServerFolder:
        """The server's folder."""
        return ServerFolder(self.root / "server")

    def device(self, number: int) -> Path:
        """The folder of a device, counted from 0."""
        return self.root / "devices" / f"{number:05}"

    def member(self, number: int) -> Member:
        """Return a device's keys and papers."""
        return Member.from_bytes((self.device(number) / "member.cbor").read_bytes())

    def root_certificate(self) -> str:
        """Return the PEM that devices pin."""
        return (self.server.tls / tls.CA_FILE).read_text(encoding="ascii")

    def acceptance(self) -> Acceptance:
        """Return what the devices demand of a round: what the federation promises."""
        settings = self.server.federation()
        privacy, aggregation = settings.speaker_privacy, settings.aggregation
        return Acceptance(
            federation=settings.name, least_cohort=2, least_honest=2,
            least_gamma=aggregation.corrupt_fraction, most_dropout=aggregation.dropout_fraction,
            least_noise_multiplier=privacy.noise_multiplier, least_clip=privacy.clip_norm,
            most_clip=privacy.clip_norm,
            least_segment_noise=settings.segment_privacy.noise_multiplier,
        )  # fmt: skip


def build_town(
    root: Path, devices: int, dimension: int, *, gamma: float, dropout: float, deadline_s: float
) -> Town:
    """Make authority, server and devices, all admitted.

    Args:
        root: an empty folder.
        devices: how many, at least 2.
        dimension: d, values in the adapter.
        gamma: share of devices assumed corrupt.
        dropout: share of devices that may vanish.
        deadline_s: of each stage.
    """
    town = Town(root)
    key = SigningKey.generate(SystemRandomness())
    port, local, page = _free_ports(3)
    # A process of its own, as for an operator: in this one it would turn our own output off.
    subprocess.run(  # noqa: S603 (our own command line)
        [
            sys.executable, "-c", CHORISTER, "server", "init", "--folder", str(town.server.root),
            "--federation", FEDERATION, "--authority", key.verify_key().raw.hex(),
            "--host", LOOPBACK, "--listen", LOOPBACK, "--port", str(port),
            "--local-port", str(local), "--page-port", str(page), "--quiet",
        ],
        check=True,
    )  # fmt: skip
    _settle(town, devices, gamma, dropout, deadline_s)
    _start_from_zeros(town, dimension)
    authority = Authority(f"sqlite:///{root.resolve() / 'authority.db'}", key, FEDERATION)
    for number in range(devices):
        _enrol(town, authority, number)
    return town


def _settle(town: Town, devices: int, gamma: float, dropout: float, deadline_s: float) -> None:
    before = town.server.federation()
    privacy = before.speaker_privacy
    delta = min(privacy.delta_dp, largest_delta(devices))
    settings = before.model_copy(
        update={
            "rounds": 1,
            "speaker_privacy": privacy.model_copy(update={"delta_dp": delta}),
            "aggregation": before.aggregation.model_copy(
                update={
                    "corrupt_fraction": gamma, "dropout_fraction": dropout,
                    "stage_deadline_s": deadline_s,
                }
            ),
        }
    )  # fmt: skip
    text = _toml(settings.model_dump(mode="json", exclude_none=True))
    write_atomically(town.server.federation_file, text.encode(), mode=0o644)
    if town.server.federation() != settings:
        raise ValueError("settings that were written read otherwise")


def _toml(plain: Mapping[str, Any]) -> str:
    """Return a table of scalars and of tables of scalars; JSON's scalars are TOML's."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in plain.items() if not isinstance(v, dict)]
    for name, table in plain.items():
        if isinstance(table, dict):
            lines += [f"\n[{name}]", _toml(table)]
    return "\n".join(lines) + "\n"


def _start_from_zeros(town: Town, dimension: int) -> None:
    shutil.rmtree(town.server.adapters)
    first = Adapter(np.zeros(dimension, np.float32), LAYOUT)
    Registry(town.server.adapters).store(first, parent=None, round_id=None, survivors=0)


def _enrol(town: Town, authority: Authority, number: int) -> None:
    randomness, now_s = SystemRandomness(), system_clock()
    key, node_key = SigningKey.generate(randomness), NodeKey.generate(randomness)
    token = authority.token(randomness, now_s)
    proof = PossessionProof.make(key, FEDERATION, token.challenge, node_key.public_bytes())
    certificate = authority.issue(proof, now_s=now_s, life_s=LIFE_S)
    admission = authority.admit_node(certificate, node_key.public_bytes(), now_s)
    admit(town.server, admission.to_bytes(), FEDERATION, now_s)
    consent = give(
        key, controller=FEDERATION, purposes=("training",), given_s=now_s,
        expires_s=now_s + LIFE_S, jurisdiction="a load test: there is no speaker",
    )  # fmt: skip
    folder = town.device(number)
    (folder / "rounds").mkdir(mode=0o700, parents=True)
    member = Member(key, node_key, certificate, consent)
    write_atomically(folder / "member.cbor", member.to_bytes())


def _free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now."""
    with ExitStack() as open_:
        sockets = [open_.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
