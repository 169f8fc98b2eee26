"""The look of all reports: one stylesheet, for the screen and for paper."""

from __future__ import annotations

from importlib.resources import files

STYLE = files("chorister.shared").joinpath("page.css").read_text(encoding="utf-8")
