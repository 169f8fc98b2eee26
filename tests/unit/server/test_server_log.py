"""The log: JSON lines with rounds and counts; no key, no payload, no end of it."""

from __future__ import annotations

import io
import json
import logging
import threading

from chorister.server.server_log import MAX_TEXT, ServerLog, redact, write_line


def _lines(folder):
    return [json.loads(line) for line in (folder / "server.jsonl").read_text().splitlines()]


def test_lines_of_a_serverapp_come_into_the_log_once_and_whole(tmp_path):
    log = ServerLog(tmp_path, echo=False)
    write_line(tmp_path, "exchange", {"round": "r/1", "asked": 4})
    with (tmp_path / "app.jsonl").open("a") as file:
        file.write('{"event": "half')
    log.take_app()
    log.take_app()
    assert [line["event"] for line in _lines(tmp_path)] == ["exchange"]
    with (tmp_path / "app.jsonl").open("a") as file:
        file.write(' a line"}\njunk\n')
    log.take_app()
    assert [line["event"] for line in _lines(tmp_path)] == ["exchange", "half a line"]


def test_a_restarted_server_does_not_repeat_them(tmp_path):
    ServerLog(tmp_path, echo=False)
    write_line(tmp_path, "exchange", {})
    ServerLog(tmp_path, echo=False).take_app()
    assert (tmp_path / "server.jsonl").read_text() == ""


def test_the_serverapps_file_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("chorister.server.server_log._FILE_BYTES", 1000)
    log = ServerLog(tmp_path, echo=False)
    for number in range(50):
        write_line(tmp_path, "exchange", {"number": number})
        log.take_app()
    assert (tmp_path / "app.jsonl").stat().st_size < 2000


def test_keys_and_long_texts_stay_out(tmp_path):
    key = "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZI\n-----END PUBLIC KEY-----"
    assert "MHYw" not in redact(f"Attempted to register {key} today")
    assert "today" in redact(f"Attempted to register {key} today")
    assert "MHYw" not in redact(f"cut off {key[:50]}")
    assert len(redact("x" * 10_000)) == MAX_TEXT


def test_flowers_output_is_wrapped(tmp_path):
    log = ServerLog(tmp_path, echo=False)
    log.follow(io.BytesIO(b"\x1b[92mINFO\x1b[0m : started\n\n\xff\xfe\n"))
    log.attach("chorister.tests.flower", logging.INFO)
    logger = logging.getLogger("chorister.tests.flower")
    logger.setLevel(logging.INFO)
    try:
        raise ValueError("a payload in an exception's words")
    except ValueError:
        logger.exception("It failed")
    found = _lines(tmp_path)
    assert found[0]["text"] == "INFO : started"
    assert "payload" not in json.dumps(found)
    assert found[-1]["text"] == "It failed (ValueError)"


def test_what_strangers_provoke_is_written_once_a_minute_and_counted(tmp_path, monkeypatch):
    for name in ("flwr", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        for what in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, what, getattr(logger, what))
    ServerLog(tmp_path, echo=False).attach_flower()

    def say(name, text, at_s):
        fields = {"msg": text, "levelno": logging.WARNING, "levelname": "WARNING", "name": name}
        logging.getLogger(name).handle(logging.makeLogRecord(fields | {"created": at_s}))

    for at_s in (1000, 1001, 1059.9, 1060, 900):
        say("uvicorn.error", "Invalid HTTP request received.", at_s)
        say("flwr", "Something else", at_s)
    say("uvicorn.error", "Another", 1000)
    told = [(line["text"][:7], line.get("left_out")) for line in _lines(tmp_path)]
    invalid = [one for one in told if one[0] == "Invalid"]
    assert invalid == [("Invalid", None), ("Invalid", 2), ("Invalid", None)]
    assert told.count(("Somethi", None)) == 5
    assert told[-1] == ("Another", None)


def test_a_service_manager_gets_the_same_lines(tmp_path, capsys):
    ServerLog(tmp_path, echo=True).tell("started", port=1)
    assert json.loads(capsys.readouterr().out)["event"] == "started"


def test_lines_of_several_threads_come_whole_while_the_file_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("chorister.server.server_log._FILE_BYTES", 5000)
    monkeypatch.setattr("chorister.server.server_log._FILES", 200)
    log = ServerLog(tmp_path, echo=False)

    def write(name):
        for number in range(200):
            log.tell("x", name=name, number=number)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [
        json.loads(line)
        for path in tmp_path.glob("server.jsonl*") for line in path.read_text().splitlines()
    ]  # fmt: skip
    assert len({(line["name"], line["number"]) for line in lines}) == 800
