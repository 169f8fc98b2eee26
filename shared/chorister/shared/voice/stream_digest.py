"""Digest of the shipped streaming weights, apart so that replacing them changes one line."""

STREAM_SHA256 = "58abf805668c2632c63b3e9534cbf9c696b9416f7c6618fec4350cb2be5c1538"
