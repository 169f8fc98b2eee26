"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "b75cdb293beeeb9d969e63e8ead43d418350f518e9ff376d8857c392543011ec"
