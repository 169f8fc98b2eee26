"""Digest of the shipped streaming weights, apart so that replacing them changes one line."""

STREAM_SHA256 = "87fea189b3b940cca30b367059076ba5599765161d3a8a4169e81f44bec04904"
