"""Where a federation's server keeps what, and the two settings files of its operator.

federation.toml     what devices are asked and promised; the authority signs it in an invitation
server.toml         addresses and names of this machine
server-key.pem      signs the checkpoints of the ledger
tls/                certificate authority and certificate of the connection
members/            who the enrolment authority admitted
revoked.bin         the authority's signed list of revoked devices
state/              ledger, budget, rounds, withdrawals, adapters: what must not be lost
flower/             Flower's own database and unpacked bundles: made anew if lost
logs/               one JSON object a line
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from chorister.shared.errors import UsageError
from chorister.shared.settings import Federation, Settings
from chorister.shared.signing import VerifyKey
from chorister.shared.voice.adapter_spec import SharedAdapterSpec, SharedPlacement

FOLDER_VARIABLE = "CHORISTER_SERVER"
Port = Annotated[int, Field(ge=1, le=65535)]
Hexadecimal = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ServerSettings(Settings):
    """What the operator decides of this machine.

    Attributes:
        authority: the enrolment authority's public key, 64 hexadecimal digits.
        run: name of this federation's rounds, part of every round id; never changed or used again.
        adapter_rank: layout of the shared adapter, as in the authority's release.
        adapter_placement: likewise.
        listen_host: address that devices connect to.
        listen_port: of the same; nothing but Flower's Fleet API is served there.
        local_port: of the Control and Runtime APIs, on 127.0.0.1 only.
        page_port: of the read-only page and metrics, on 127.0.0.1 only.
        public_address: HOST:PORT that devices dial.
        most_strangers: connections that have not shown to be a device's; one more closes the
            oldest.
        most_held_mib: of requests that are being read or answered, all devices together; at least
            four devices' parts.
    """

    authority: Hexadecimal
    run: Annotated[str, Field(min_length=1, max_length=64)]
    adapter_rank: Annotated[int, Field(ge=0, le=8)] = 2
    adapter_placement: SharedPlacement = "both"
    listen_host: Annotated[str, Field(min_length=1, max_length=255)] = "0.0.0.0"  # noqa: S104
    listen_port: Port = 9092
    local_port: Port = 9093
    page_port: Port = 9094
    public_address: Annotated[str, Field(min_length=3, max_length=260)]
    most_strangers: Annotated[int, Field(ge=16, le=100_000)] = 512
    most_held_mib: Annotated[int, Field(ge=128, le=1_048_576)] = 256

    @property
    def adapter_spec(self) -> SharedAdapterSpec:
        """Layout of the shared adapter."""
        return SharedAdapterSpec(self.adapter_rank, self.adapter_placement)

    @property
    def authority_key(self) -> VerifyKey:
        """The pinned key."""
        return VerifyKey(bytes.fromhex(self.authority))


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """Paths of one server.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def federation_file(self) -> Path:
        """Settings that devices are told."""
        return self.root / "federation.toml"

    @property
    def server_file(self) -> Path:
        """Settings of the machine."""
        return self.root / "server.toml"

    @property
    def signing_key(self) -> Path:
        """The server's key."""
        return self.root / "server-key.pem"

    @property
    def tls(self) -> Path:
        """Certificates of the connection."""
        return self.root / "tls"

    @property
    def members(self) -> Path:
        """Admissions by the authority, one file a device."""
        return self.root / "members"

    @property
    def revoked_file(self) -> Path:
        """The authority's list of revoked devices."""
        return self.root / "revoked.bin"

    @property
    def state(self) -> Path:
        """What must not be lost."""
        return self.root / "state"

    @property
    def ledger(self) -> Path:
        """The server's ledger."""
        return self.state / "ledger.jsonl"

    @property
    def budget(self) -> Path:
        """The budget's journal."""
        return self.state / "budget.jsonl"

    @property
    def adapters(self) -> Path:
        """Versions of the shared adapter."""
        return self.state / "adapters"

    @property
    def plan_file(self) -> Path:
        """Which rounds are wanted, and when."""
        return self.state / "plan.json"

    @property
    def flower(self) -> Path:
        """Flower's own."""
        return self.root / "flower"

    @property
    def logs(self) -> Path:
        """Structured logs."""
        return self.root / "logs"

    @property
    def lock_file(self) -> Path:
        """Held by a server that runs."""
        return self.root / ".server.lock"

    @property
    def members_lock(self) -> Path:
        """Held by who takes in what the authority signed."""
        return self.root / ".members.lock"

    @property
    def status_file(self) -> Path:
        """What the running server says of itself, for `chorister server status`."""
        return self.root / "running.json"

    def server_settings(self) -> ServerSettings:
        """Return the machine's settings.

        Raises:
            UsageError: there is no server in this folder.
            BadSettings: they are not valid.
        """
        if not self.server_file.exists():
            raise UsageError(
                "A server is made by `chorister server init`.",
                f"none in '{self.root}'",
                "Make one, or name its --folder.",
            )
        return ServerSettings.load(self.server_file)

    def federation(self) -> Federation:
        """Return the federation's settings.

        Raises:
            BadSettings: they are not valid.
        """
        return Federation.load(self.federation_file)


def default_folder() -> Path:
    """Return where a server lies unless a command says otherwise."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "chorister" / "server"
