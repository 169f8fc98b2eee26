"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "9c761d7f28d50fc432d1689d88df9a7fe7d248070c6bc4c130b9d0c1663bbdc5"
