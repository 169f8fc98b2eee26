"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "734e59c38799b71cd449863f47d3aa1d84da19366a8f8c73085552db55c5ab67"
