"""The speaker's own place on this machine: the vault, the ledger beside it, and how it is opened.

    FOLDER/vault.json index.db items/   the vault
    FOLDER/ledger.jsonl                 what was done under which consent
    FOLDER/federations/                 a folder for each that was joined (client/agreement.py)
    FOLDER/budget.jsonl                 what personal adapters trained with noise have cost

Every command that uses a voice comes here, and asks `Home.permit` before it does.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chorister.client import consent
from chorister.client.consent import ConsentRecord, Permit, Purpose
from chorister.client.vault import WITHDRAWN_FILE, Vault, check_in_use, read_marker
from chorister.client.vault_key import KEY_FILE, uses_keyring
from chorister.shared import codec
from chorister.shared.errors import BadLedger, ChoristerError, ConsentRefused, UsageError
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import SigningKey, VerifyKey

# Names of items. None comes from the speaker: a name is sealed, and still chosen here.
IDENTITY = "identity"
CONSENT = "consent"
CERTIFICATE = "certificate"
PROFILE = "profile"
PERSONAL_ADAPTER = "personal-adapter"
PERSONAL_PROFILE = "personal-profile"  # of a voice file; PROFILE is of those set apart
SOURCE = "source"  # statistics of the speaker as one who is converted
RECORDING = "recording-{:04d}"
STATEMENT = "statement"

LEDGER_FILE = "ledger.jsonl"
BUDGET_FILE = "budget.jsonl"
FEDERATIONS = "federations"
NO_FEDERATION = "none"
FOLDER_VARIABLE = "CHORISTER_VAULT"
PASSPHRASE_FILE_VARIABLE = "CHORISTER_PASSPHRASE_FILE"  # noqa: S105 (the name of a variable)
LEAST_PASSPHRASE = 8


@dataclass(frozen=True, slots=True)
class Home:
    """A speaker's vault, opened.

    Attributes:
        vault: keys, consent, recordings, adapter.
        key: the device's identity.
        ledger: of this device.
        consent: what the speaker allowed; None before it was given.
        now_s: Unix time.
    """

    vault: Vault
    key: SigningKey
    ledger: LedgerFile
    consent: ConsentRecord | None
    now_s: Callable[[], int]

    @property
    def device(self) -> VerifyKey:
        """The public half of the identity."""
        return self.key.verify_key()

    @property
    def folder(self) -> Path:
        """Where it all lies."""
        return self.vault.folder

    def permit(self, purpose: Purpose) -> Permit:
        """Return the permit for one use of this voice; grant or refusal is in the ledger.

        Raises:
            ConsentRefused: the consent does not cover it.
            VaultError: the vault was moved to another machine.
        """
        self.require_in_use(purpose)
        return consent.permit(
            self.consent, purpose, device=self.device, now_s=self.now_s(), ledger=self.ledger
        )

    def require_in_use(self, purpose: Purpose) -> None:
        """Return unless another process ended it since it was opened; a refusal is in the ledger.

        Raises:
            ConsentRefused: the speaker withdrew.
            VaultError: the vault was moved to another machine.
        """
        try:
            check_in_use(self.folder)
        except ChoristerError as error:
            self.ledger.append("refusal", purpose=purpose, reason=error.found)
            raise

    def reread(self) -> Home:
        """Return the home with the consent as it lies in the vault now.

        Another process may have renewed, narrowed or given it since this one was opened.

        Raises:
            VaultError: it does not open.
        """
        return Home(self.vault, self.key, self.ledger, _consent_in(self.vault), self.now_s)

    def keep_consent(self, record: ConsentRecord, action: str) -> Home:
        """Store a consent that the speaker gave, note it, and return the home that has it.

        Args:
            record: signed by this device.
            action: 'given', 'renewed' or 'narrowed'.

        Raises:
            BadSignature: another device signed it.
        """
        record.check(self.device)
        self.vault.put(CONSENT, codec.encode(record.to_plain()), "consent")
        self.ledger.append(
            "consent", action=action, purposes=list(record.purposes), consent=record.sha256
        )
        return Home(self.vault, self.key, self.ledger, record, self.now_s)


def default_folder() -> Path:
    """Return where the vault lies unless a command says otherwise."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "chorister" / "vault"


def add_vault_options(parser: argparse.ArgumentParser, *, creates: bool = False) -> None:
    """Give a command --vault and --passphrase-file, and --keyring if it makes vaults."""
    parser.add_argument(
        "--vault", type=Path, metavar="DIR",
        help=f"the vault (default: {FOLDER_VARIABLE}, or ~/.local/share/chorister/vault)",
    )  # fmt: skip
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE",
        help=f"read the passphrase from FILE's first line (also {PASSPHRASE_FILE_VARIABLE}); "
        "asked for on a terminal otherwise",
    )  # fmt: skip
    if creates:
        parser.add_argument(
            "--keyring",
            action="store_true",
            help="the vault opens by the system's keyring, without a passphrase",
        )


def vault_folder(options: argparse.Namespace) -> Path:
    """Return the folder that a command's options name."""
    folder: Path = options.vault or default_folder()
    return folder


def exists(folder: Path) -> bool:
    """Return whether there is a vault, in use or withdrawn."""
    return (folder / KEY_FILE).exists() or (folder / WITHDRAWN_FILE).exists()


def open_from(
    options: argparse.Namespace, *, even_if_ended: bool = False, check_ledger: bool = True
) -> Home:
    """Return the home that a command's options name; the last two arguments as of `open_home`.

    Raises:
        VaultError, ConsentRefused: as `Vault.open`.
        UsageError: no passphrase can be asked for.
    """
    folder = vault_folder(options)
    if not even_if_ended:
        _note_withdrawn(folder)
    return open_home(
        folder,
        passphrase_for(folder, options),
        even_if_ended=even_if_ended,
        check_ledger=check_ledger,
    )


def open_vault_from(options: argparse.Namespace) -> Vault:
    """Return the vault that a command's options name, whatever state its items are in.

    Raises:
        VaultError: as `Vault.open`.
        UsageError: no passphrase can be asked for.
    """
    folder = vault_folder(options)
    passphrase = passphrase_for(folder, options)
    return Vault.open(folder, passphrase, SystemRandomness(), even_if_ended=True)


def open_or_create_from(options: argparse.Namespace) -> Home:
    """Return the home that a command's options name, new if there is none.

    Raises:
        VaultError, ConsentRefused: as `Vault.open`.
        UsageError: no passphrase can be asked for, or the folder holds something else.
    """
    folder = vault_folder(options)
    if exists(folder):
        return open_from(options)
    if options.keyring:
        return create_home(folder, None)
    return create_home(folder, choose_passphrase(named_file(options), "new vault"))


def open_home(
    folder: Path,
    passphrase: str | None,
    *,
    even_if_ended: bool = False,
    check_ledger: bool = True,
    clock: Callable[[], int] = system_clock,
) -> Home:
    """Return the home in a folder.

    Args:
        folder: of the vault.
        passphrase: None where the system's keyring opens it.
        even_if_ended: although it was moved or withdrawn, to finish that.
        check_ledger: refuse a damaged ledger now; a withdrawal goes on without one.
        clock: Unix time.

    Raises:
        VaultError, ConsentRefused: as `Vault.open`.
        BadLedger: the ledger was altered.
    """
    vault = Vault.open(folder, passphrase, SystemRandomness(), even_if_ended=even_if_ended)
    return _home(vault, clock, check_ledger=check_ledger)


def reopen(home: Home) -> Home:
    """Return a home as it is now, without its passphrase: what other processes changed is seen.

    Raises:
        ConsentRefused: the speaker withdrew meanwhile.
        VaultError: the vault was moved meanwhile, or is damaged.
        BadLedger: the ledger was altered.
    """
    check_in_use(home.folder)
    vault = Vault.with_key(home.folder, home.vault.key_for_moving(), SystemRandomness())
    return _home(vault, home.now_s)


def create_home(
    folder: Path, passphrase: str | None, *, clock: Callable[[], int] = system_clock
) -> Home:
    """Return a new home with a fresh identity, and nothing allowed yet.

    Args:
        folder: empty or absent.
        passphrase: what opens it; None for the system's keyring.
        clock: Unix time.

    Raises:
        UsageError: as `Vault.create`.
    """
    try:
        vault = Vault.create(folder, passphrase, SystemRandomness())
    except OSError as error:
        raise UsageError(
            "The vault's folder can be written.",
            f"{folder}: {error.strerror or error}",
            "Choose another with --vault.",
        ) from error
    return _home(vault, clock)


def passphrase_for(folder: Path, options: argparse.Namespace) -> str | None:
    """Return the passphrase of a vault, None if it has none.

    Raises:
        ConsentRefused: its speaker withdrew, and its key is gone.
        VaultError: there is no vault.
        UsageError: it can neither be read nor asked for.
    """
    if not (folder / KEY_FILE).exists():
        check_in_use(folder)  # withdrawn says more than missing
    if uses_keyring(folder):
        return None
    found = read_passphrase(named_file(options))
    return ask("Passphrase of the vault: ") if found is None else found


def choose_passphrase(path: Path | None, what: str) -> str:
    """Return a new passphrase: a file's first line, or what a person typed twice.

    Args:
        path: the file; None asks.
        what: what it will open, for the question.

    Raises:
        UsageError: too short, not the same twice, or there is nobody to ask.
    """
    found = None if path is None else read_passphrase(path)
    if found is None:
        found = ask(f"New passphrase of the {what}, {LEAST_PASSPHRASE} characters or more: ")
        if ask("Once more: ") != found:
            raise UsageError("Both times the same is typed.", "two passphrases", "Try again.")
    return check_passphrase(found)


def check_passphrase(found: str) -> str:
    """Return a passphrase that is about to be chosen.

    Raises:
        UsageError: it is too short.
    """
    if len(found) < LEAST_PASSPHRASE:
        raise UsageError(
            f"A passphrase has {LEAST_PASSPHRASE} characters or more.",
            f"one of {len(found)}",
            "Choose a longer one: a few words are good.",
        )
    return found


def ask(prompt: str) -> str:
    """Return what a person types, unseen.

    Raises:
        UsageError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "A passphrase is typed on a terminal, or read from a file.",
            "neither",
            f"Give --passphrase-file FILE, or set {PASSPHRASE_FILE_VARIABLE}.",
        )
    return getpass.getpass(prompt)


def ask_openly(prompt: str) -> str:
    """Return what a person types, seen.

    Raises:
        UsageError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "What cannot be taken back is confirmed on a terminal.", "none", "Add --yes."
        )
    return input(prompt)


def read_passphrase(path: Path | None) -> str | None:
    """Return the first line of a file, None if no file is named.

    Raises:
        UsageError: it cannot be read.
    """
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(
            "The passphrase's file can be read.", f"{path}: {error}", "Check the path."
        ) from None
    return lines[0] if lines else ""


def named_file(options: argparse.Namespace) -> Path | None:
    """Return the passphrase's file that options or environment name, None if neither does."""
    named: Path | None = options.passphrase_file
    from_environment = os.environ.get(PASSPHRASE_FILE_VARIABLE)
    return named or (Path(from_environment) if from_environment else None)


def _home(vault: Vault, clock: Callable[[], int], *, check_ledger: bool = True) -> Home:
    if not vault.has(IDENTITY):
        key = SigningKey.generate(SystemRandomness())
        vault.put(IDENTITY, key.secret_bytes(), "key")
    key = SigningKey(vault.get(IDENTITY))
    ledger = LedgerFile(
        vault.folder / LEDGER_FILE,
        owner=key.verify_key().name,
        federation=NO_FEDERATION,
        clock=clock,
        check=check_ledger,
    )
    return Home(vault, key, ledger, _consent_in(vault), clock)


def _consent_in(vault: Vault) -> ConsentRecord | None:
    if not vault.has(CONSENT):
        return None
    return ConsentRecord.from_plain(codec.decode(vault.get(CONSENT)))


def _note_withdrawn(folder: Path) -> None:
    """Refuse a withdrawn voice, with an entry in the ledger that it left."""
    marker = read_marker(folder, WITHDRAWN_FILE)
    if marker is None:
        return
    device, at_s = marker.get("device_id"), marker.get("at_s")
    if isinstance(device, str) and (folder / LEDGER_FILE).exists():
        # A ledger that takes no entry changes nothing of the refusal.
        with contextlib.suppress(BadLedger, OSError):
            ledger = LedgerFile(folder / LEDGER_FILE, owner=device, federation=NO_FEDERATION)
            ledger.append("refusal", reason=f"the consent was withdrawn at {at_s} (Unix time)")
    raise ConsentRefused(
        "A voice is used only while its owner wants it.",
        f"the consent was withdrawn at {at_s} (Unix time)",
        "Nothing was done. A new consent needs a new vault: `chorister enrol --vault DIR`.",
    )
