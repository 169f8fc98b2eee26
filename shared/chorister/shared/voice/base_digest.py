"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = ""
