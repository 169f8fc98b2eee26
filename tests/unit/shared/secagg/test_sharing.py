"""Secret sharing: any threshold of shares is enough, one less says nothing, a wrong one shows."""

from __future__ import annotations

import itertools

import pytest

from chorister.shared.errors import BadMessage
from chorister.shared.randomness import SystemRandomness
from chorister.shared.secagg.sharing import PRIME, _field_elements, reconstruct, split
from chorister.simulations.randomness import SimulatedRandomness

SECRET = bytes(range(32))


def test_every_subset_of_a_threshold_reconstructs() -> None:
    shares = split(SECRET, [0, 3, 4, 9, 4000], 3, SystemRandomness())
    assert set(shares) == {0, 3, 4, 9, 4000}
    for subset in itertools.combinations(shares, 3):
        assert reconstruct({h: shares[h] for h in subset}, 3) == SECRET
    assert reconstruct(shares, 3) == SECRET


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_extremes_of_the_field(secret: bytes) -> None:
    shares = split(secret, range(5), 5, SystemRandomness())
    assert reconstruct(shares, 5) == secret


def test_fewer_shares_fit_every_secret() -> None:
    # For two of three shares and any third value there is a polynomial: all secrets stay possible.
    shares = split(SECRET, [0, 1, 2], 3, SimulatedRandomness(0))
    seen = set()
    for guess in range(20):
        forged = {**shares, 2: guess.to_bytes(33, "big")}
        try:
            seen.add(reconstruct(forged, 3))
        except BadMessage:
            seen.add(guess.to_bytes(1, "big"))
    assert len(seen) == 20
    assert SECRET not in seen


def test_too_few_or_impossible_shares_are_refused() -> None:
    shares = split(SECRET, range(4), 3, SystemRandomness())
    with pytest.raises(BadMessage, match="needs 3"):
        reconstruct({h: shares[h] for h in (0, 1)}, 3)
    with pytest.raises(BadMessage, match="field"):
        reconstruct({**shares, 0: b"\xff" * 33}, 3)
    # Shares of 2**256 + 1, an element of the field but no 32-byte secret.
    with pytest.raises(BadMessage, match="32 bytes"):
        reconstruct({h: (2**256 + 1).to_bytes(33, "big") for h in range(3)}, 3)


def test_the_modulus_is_prime() -> None:
    # Miller and Rabin, 40 bases.
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        x = pow(base, odd, PRIME)
        assert x in (1, PRIME - 1) or any(
            (x := x * x % PRIME) == PRIME - 1 for _ in range(twos - 1)
        )


def test_field_elements_reach_the_top_and_stay_below_the_prime() -> None:
    class Extremes(SystemRandomness.__base__):  # type: ignore[name-defined, misc]
        private, statement = False, "extremes"

        def __init__(self) -> None:
            self.blocks = [b"\xff" * 33, (PRIME - 1).to_bytes(33, "big"), bytes(33)]

        def bytes(self, n: int) -> bytes:
            block = b"".join(self.blocks * n)[:n]
            self.blocks = self.blocks[1:] + self.blocks[:1]
            return block

        def fork(self, label: str) -> Extremes:
            return self

    # 257 ones are too large and refused; the largest element and zero are kept.
    assert _field_elements(2, Extremes()) == [PRIME - 1, 0]


def test_a_random_polynomial_each_time() -> None:
    first = split(SECRET, range(3), 2, SystemRandomness())
    second = split(SECRET, range(3), 2, SystemRandomness())
    assert all(first[h] != second[h] for h in range(3))
