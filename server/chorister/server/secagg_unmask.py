"""From revealed shares to the sum: reconstruct, check against the commitments, remove the masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from chorister.shared.errors import BadMessage, RoundAborted
from chorister.shared.secagg.keys import AgreementKey, Binding, commit_seed, commit_share
from chorister.shared.secagg.masks import MaskedSum, centred
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import Reveal, Roster, ShareBundle
from chorister.shared.secagg.sharing import reconstruct
from chorister.shared.secagg.terms import RoundTerms

SEED = "seed"
KEY = "key"
MAX_ATTEMPTS = 64
"""Sets of shares that are tried for one secret before its owner is named."""


class RevealedShares:
    """The shares that fit their owners' commitments.

    Args:
        terms: of the round.
        roster: of the round.
        roster_digest: its digest, 32 bytes.
        bundles: owner to the bundle that holds its commitments.
        survivors: whose seeds are reconstructed; of the other owners it is the masking key.
        threshold: t.
    """

    def __init__(
        self,
        terms: RoundTerms,
        roster: Roster,
        roster_digest: bytes,
        bundles: Mapping[int, ShareBundle],
        survivors: Members,
        threshold: int,
    ) -> None:
        self.terms = terms
        self.roster = roster
        self.survivors = survivors
        self.dropped = Members.of(bundles.keys() - survivors.indices)
        self._digest = roster_digest
        self._threshold = threshold
        self._commitments = {
            owner: {s.recipient: (s.seed_commitment, s.key_commitment) for s in bundle.shares}
            for owner, bundle in bundles.items()
        }
        self._shares: dict[int, dict[int, bytes]] = {owner: {} for owner in bundles}
        self.inconsistent: list[int] = []
        """Owners whose secrets only some of the sets of shares gave."""

    def __repr__(self) -> str:
        return f"RevealedShares(of {len(self._shares)} devices)"

    def neighbours(self, owner: int) -> set[int]:
        """Return every survivor that shares a pairwise mask with the owner."""
        chosen = self._commitments[owner].keys()
        return {
            i for i in self.survivors
            if i != owner and (i in chosen or owner in self._commitments[i])
        }  # fmt: skip

    def add(self, holder: int, reveal: Reveal) -> list[str]:
        """Keep the shares that fit, and return why others do not."""
        faults = [
            f"says that the shares from {self._name(i)} do not open; one of the two lies"
            for i in reveal.unreadable
            if i in self._commitments
        ]
        for kind, entries, owners in (
            (SEED, reveal.seed_shares, self.survivors),
            (KEY, reveal.key_shares, self.dropped),
        ):
            for owner, share in entries:
                if owner not in owners or not self._fits(kind, owner, holder, share):
                    name = self._name(owner) if owner in self._commitments else "nobody"
                    faults.append(
                        f"revealed another {kind} share than {name} committed to; one of the two "
                        "lies"
                    )
                else:
                    self._shares[owner][holder] = share
        return faults

    def _fits(self, kind: str, owner: int, holder: int, share: bytes) -> bool:
        if owner == holder:
            # Nobody else has a commitment to it; a wrong one shows when the seed is reconstructed.
            return True
        commitments = self._commitments[owner].get(holder)
        if commitments is None:
            return False
        expected = commitments[0] if kind == SEED else commitments[1]
        return commit_share(kind, self._digest, owner, holder, share) == expected

    def secret(self, owner: int) -> bytes:
        """Return the owner's seed if it survived, its masking key if it dropped out.

        Raises:
            RoundAborted: too few shares, or no set of them gives what the owner committed to.
        """
        shares = self._shares[owner]
        if len(shares) < self._threshold:
            raise RoundAborted(
                f"A secret needs {self._threshold} shares.",
                f"{len(shares)} of device {self._name(owner)}",
                "Keep the old adapter and start another round.",
            )
        for failed, attempt in enumerate(self._attempts(owner, shares)):
            try:
                secret = reconstruct(attempt, self._threshold)
            except BadMessage:
                continue
            if self._committed(owner, secret):
                if failed:
                    self.inconsistent.append(owner)
                return secret
        raise RoundAborted(
            "The shares of a secret reconstruct what their owner committed to.",
            f"another secret of device {self._name(owner)}",
            "Keep the old adapter; leave that device out of the next round.",
        )

    def _attempts(self, owner: int, shares: Mapping[int, bytes]) -> Iterator[dict[int, bytes]]:
        """Yield sets of t shares: an owner may have committed to some that fit no others."""
        t = self._threshold
        # Nobody has a commitment to the owner's own share, so it comes last.
        holders = sorted(shares, key=lambda holder: (holder == owner, holder))
        for first in range(min(len(holders), MAX_ATTEMPTS)):
            yield {h: shares[h] for h in (holders[first:] + holders[:first])[:t]}

    def _committed(self, owner: int, secret: bytes) -> bool:
        advertisement = self.roster.advertisements[owner]
        if owner in self.survivors:
            device = advertisement.certificate.device_key.raw
            return commit_seed(self.terms.sha256(), device, secret) == advertisement.seed_commitment
        return AgreementKey(secret).public() == advertisement.masking_key

    def _name(self, index: int) -> str:
        return self.roster.advertisements[index].device_id


def unmask(total: MaskedSum, shares: RevealedShares, view: bytes) -> NDArray[np.int64]:
    """Return the sum of the survivors' noised deltas, centred.

    Args:
        total: sum of their masked deltas; it is changed in place.
        shares: what the survivors revealed.
        view: digest that the pairwise masks were derived for, 32 bytes.

    Returns:
        shape (d,), int64.

    Raises:
        RoundAborted: a secret cannot be reconstructed.
    """
    # Everything is reconstructed before anything is removed, so a liar costs no half-done work.
    seeds = [shares.secret(owner) for owner in shares.survivors]
    keys = {
        owner: AgreementKey(shares.secret(owner))
        for owner in shares.dropped
        if shares.neighbours(owner)
    }
    for seed in seeds:
        total.subtract_mask(seed)
    for owner, key in keys.items():
        for seed, survivor_added in _pairwise(owner, key, shares, view):
            if survivor_added:
                total.subtract_mask(seed)
            else:
                total.add_mask(seed)
    bits = shares.terms.modulus_bits
    return centred(total.reduced(bits), bits)


def _pairwise(
    owner: int, key: AgreementKey, shares: RevealedShares, view: bytes
) -> Iterator[tuple[bytes, bool]]:
    """Yield each seed of a drop-out's masks, and whether the survivor had added its mask."""
    binding = Binding(shares.terms.sha256(), view)
    everyone = shares.roster.advertisements
    for peer in sorted(shares.neighbours(owner)):
        low, high = sorted((owner, peer))
        seed = binding.mask_seed(
            key.agree(everyone[peer].masking_key),
            everyone[low].certificate.device_key.raw,
            everyone[high].certificate.device_key.raw,
        )
        yield seed, peer == low
