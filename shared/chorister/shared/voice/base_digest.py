"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "f2b5c6d6cf856aeb2de0562c73a155a2362cf5f539d7dba7f8031b7394242e44"
