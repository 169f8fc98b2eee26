"""`chorister server load`: how many devices one server carries, measured on this machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chorister.shared.console import add_output_options, apply_output_options, print_json, say
from chorister.shared.errors import BadSettings, UsageError
from chorister.shared.files import write_atomically
from chorister.shared.secagg.terms import MAX_COHORT
from chorister.simulations.load_meter import DEVICES, SERVER_APP, SUPERLINK

EXAMPLES = """examples:
  chorister server load --devices 10 25 50 100 --json
      a real server and so many devices without voices on 127.0.0.1, one round each
  chorister server load --devices 100 --dim 480 --keep /tmp/load
      an adapter of 480 values; logs and ledgers stay in a new folder
  chorister server load --from load.json --enrolled 10000 1000000 --chart load.svg
      what rounds that were measured before mean for federations on paper"""
WITHIN_S = 120.0


def load(argv: Sequence[str]) -> int:
    """Measure rounds of a real server on 127.0.0.1 with many devices that have no voice."""
    options = _parse(argv)
    if options.from_file is not None:
        return _project(options)
    # Flower and torch are heavy to import, and --help needs neither.
    from chorister.simulations.load import measure

    # A signal ends this by an exception, so that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    rows: list[dict[str, Any]] = []
    for devices in options.devices:
        with _folder(options.keep, devices) as root:
            found = measure(
                root, devices, options.dim, gamma=options.gamma, dropout=options.dropout,
                processes=options.processes, most_s=options.most_s,
                say=lambda text, n=devices: say(f"{n} devices: {text}"),  # type: ignore[misc]
            )  # fmt: skip
        rows.append(found.to_plain())
        for line in _lines(rows[-1]):
            say(line)
    if options.json:
        print_json({"machine": _machine(), "within_s": WITHIN_S, "rounds": rows,
                    "gamma": options.gamma, "dropout": options.dropout})  # fmt: skip
    return 0 if all(row["status"] == "finished" for row in rows) else 1


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "chorister server load", description=load.__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--devices", type=int, nargs="+", default=[10], metavar="N", help="one round for each (10)")
    add("--dim", type=int, default=8000, metavar="D", help="values in a delta (8000)")
    add("--gamma", type=float, default=0.05, help="share of devices assumed corrupt (0.05)")
    add("--dropout", type=float, default=0.1, help="share of devices that may vanish (0.1)")
    add("--processes", type=int, default=2, metavar="P", help="to spread the devices over (2)")
    add("--most-s", type=float, default=600.0, metavar="S", help="give a round up after (600)")
    add("--keep", type=Path, metavar="FOLDER", help="keep servers, ledgers and logs in a new one")
    paper = parser.add_argument_group("on paper, from rounds that were measured before")
    add = paper.add_argument
    add("--from", dest="from_file", type=Path, metavar="FILE", help="what --json printed")
    add("--enrolled", type=int, nargs="+", default=[10_000, 1_000_000], metavar="N",
        help="devices on paper (10000 1000000)")  # fmt: skip
    add("--paper-dims", type=int, nargs="+", default=[480, 8000], metavar="D",
        help="values in a delta on paper (480, which is what is shipped, and 8000)")  # fmt: skip
    add("--chart", type=Path, metavar="FILE.svg", help="draw the measured rounds")
    add_output_options(parser)
    options = parser.parse_args(argv)
    apply_output_options(options)
    if not all(2 <= n <= MAX_COHORT for n in options.devices) or options.dim < 1:
        raise BadSettings(
            f"A round has 2 to {MAX_COHORT} devices and a delta of one value or more.",
            f"{options.devices} devices, {options.dim} values", "Change --devices or --dim.",
        )  # fmt: skip
    if not 1 <= options.processes <= min(options.devices) or options.most_s <= 0:
        raise BadSettings(
            "Each process has a device or more, and a round has some time.",
            f"{options.processes} processes, {options.most_s:g} s",
            "Lower --processes, or raise --most-s.",
        )  # fmt: skip
    if options.keep is not None and options.keep.exists():
        raise UsageError(
            "What is kept goes into a new folder.", f"'{options.keep}' exists", "Choose another."
        )
    return options


def _project(options: argparse.Namespace) -> int:
    """Carry measured rounds on to federations on paper, and draw them."""
    from chorister.simulations import load_paper

    try:
        plain = json.loads(options.from_file.read_bytes())
        rounds, gamma, dropout = plain["rounds"], plain["gamma"], plain["dropout"]
        found = load_paper.fit(rounds)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "Measured rounds are what --json printed.",
            f"'{options.from_file}': {type(error).__name__}",
            "Write one: chorister server load --devices 10 25 50 --json > load.json",
        ) from None
    each_s = load_paper.admission_s()
    papers = [
        load_paper.on_paper(enrolled, dimension, found, each_s, gamma, dropout)
        for enrolled in options.enrolled
        for dimension in options.paper_dims
    ]
    if options.chart is not None:
        write_atomically(options.chart, load_paper.drawing(rounds).encode(), mode=0o644)
    if options.json:
        print_json({"fit": asdict(found), "paper": [asdict(paper) for paper in papers]})
    for line in load_paper.lines(found, papers):
        say(line)
    return 0


@contextmanager
def _folder(keep: Path | None, devices: int) -> Iterator[Path]:
    if keep is not None:
        root = keep / str(devices)
        root.mkdir(mode=0o700, parents=True)
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="chorister-load-") as folder:
        yield Path(folder)


def _machine() -> dict[str, object]:
    return {"cores": os.cpu_count(), "processor": platform.machine(),
            "python": platform.python_version(), "system": platform.system()}  # fmt: skip


def _lines(row: dict[str, Any]) -> Iterator[str]:
    cpu, rss = row["cpu_s"], row["peak_rss_mib"]
    within = "within" if row["round_s"] <= WITHIN_S else "not within"
    yield (
        f"  {row['status']} in {row['round_s']:.1f} s, {within} 2 minutes; {row['survivors']} of "
        f"{row['devices']} devices in the sum"
    )
    for stage in row["stages"]:
        spent = stage["cpu_s"]
        yield (
            f"  {stage['name']:<11}{stage['wall_s']:7.1f} s   processor: SuperLink "
            f"{spent[SUPERLINK]:6.1f} s, ServerApp {spent[SERVER_APP]:6.1f} s, devices "
            f"{spent[DEVICES]:6.1f} s"
        )
    yield (
        f"  in all     {row['round_s']:7.1f} s   processor: SuperLink {cpu[SUPERLINK]:6.1f} s, "
        f"ServerApp {cpu[SERVER_APP]:6.1f} s, devices {cpu[DEVICES]:6.1f} s, other programs "
        f"{row['others_cpu_s']:.1f} s"
    )
    yield (
        f"  memory: SuperLink {rss[SUPERLINK]:.0f} MiB, ServerApp {rss[SERVER_APP]:.0f} MiB; "
        f"{row['messages']} messages, {row['protocol_up_bytes'] / 1e6:.2f} MB up, "
        f"{row['protocol_down_bytes'] / 1e6:.2f} MB down; {sum(row['requests'].values())} requests"
    )
    yield (
        f"  derived: a server of two cores with devices elsewhere needs "
        f"{row['derived']['server_alone_s']:.1f} s of processor time in the round"
    )
