"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "16174c9de2bb9459929d7c874b16f92596fc965cba19ac9100a260df20fb72ac"
