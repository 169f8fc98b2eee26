"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "1e71cf10b023a9925e8cac03982720b3cf19dd3572e3a00f82617091ddea53bf"
