"""`chorister ui` in a real browser with a microphone: enrol, personalise, convert, withdraw.

Chromium plays a recording as its microphone, from the beginning each time that the page begins to
record. The speaker is a synthesiser, so that it can say the digits of the moment; the page, the
server, the checks and the model are those that a person meets.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

espeak = pytest.importorskip("espeakng_loader", reason="needs the extra 'embedded'")
selenium = pytest.importorskip("selenium", reason="drives the browser")
pytest.importorskip("pocketsphinx", reason="hears the statement's words")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
)

PASSPHRASE = "correct horse battery"
# The server as the command starts it. Its digits are those that the recogniser hears from this
# synthesiser without fail; how often it does not hear others is in docs/enrolment.md.
SERVER = """
import sys
from chorister.client import statement
from chorister.shared.cli import main
statement._draw_digits = lambda randomness: (2, 8, 5, 0, 1, 6)
sys.exit(main())
"""


# Whether the form with the terms was ever there, and a reason for the page to draw itself anew.
WATCH_FOR_TERMS = """
window.lost = false;
new MutationObserver(() => { window.lost ||= !!document.querySelector('#terms-done'); })
  .observe(document.querySelector('#main'), { childList: true, subtree: true });
document.dispatchEvent(new Event('visibilitychange'));
"""


class Speaker:
    """What the browser's microphone hears."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def say(self, text: str) -> float:
        """Put a spoken text before the microphone; return its length in seconds."""
        from chorister.simulations.espeak import Voice, speak

        library, data = Path(espeak.get_library_path()), Path(espeak.get_data_path())
        rate_hz, (pcm,) = speak(Voice("gmw/en-US", rate_wpm=150), [text], library, data)
        samples = 0.5 * np.frombuffer(pcm, "<i2") / 32768
        quiet = np.zeros(rate_hz // 3)
        whole = soxr.resample(np.concatenate([quiet, samples, quiet]), rate_hz, 48_000)
        room = 1e-4 * np.random.default_rng(0).standard_normal(len(whole))
        soundfile.write(self.path, whole + room, 48_000, subtype="PCM_16")
        return len(whole) / 48_000


class Person:
    """Who sits before the page."""

    def __init__(self, browser: webdriver.Chrome, speaker: Speaker) -> None:
        self.browser = browser
        self._speaker = speaker

    def until(self, script: str, seconds: float = 180.0) -> Any:
        """Wait until an expression of the page is true, and return it."""
        return WebDriverWait(self.browser, seconds, 0.1).until(
            lambda browser: browser.execute_script(f"return {script}"), f"never came: {script}"
        )

    def there(self, selector: str, seconds: float = 180.0) -> None:
        """Wait until an element is there and can be used."""
        self.until(f"!!document.querySelector({json.dumps(selector)} + ':not(:disabled)')", seconds)

    def text(self, selector: str) -> str:
        """Return what an element says."""
        found = self.until(f"document.querySelector({json.dumps(selector)})?.textContent")
        return str(found)

    def press(self, selector: str) -> None:
        """Move the focus to a control and press Enter: no pointer is needed anywhere."""
        self._use(selector, lambda element: element.send_keys(Keys.ENTER))

    def type(self, selector: str, text: str) -> None:
        """Fill in a field."""

        def fill(element: WebElement) -> None:
            element.clear()
            element.send_keys(text)

        self._use(selector, fill)

    def make_a_vault(self) -> None:
        """Choose a passphrase on the first form."""
        self.type("#passphrase", PASSPHRASE)
        self.type("#again", PASSPHRASE)
        self.press("#make")

    def agree_to_terms(self) -> None:
        """Begin an enrolment, up to its first recording."""
        self.press("#to-enrol")
        self.type("#name", "Anna Miller")
        self.type("#controller", "The Choir")
        self.press("#terms-done")

    def _use(self, selector: str, act: Callable[[WebElement], None]) -> None:
        for _ in range(5):
            self.there(selector)
            try:
                act(self.browser.find_element(By.CSS_SELECTOR, selector))
                return
            except WebDriverException:  # redrawn in between
                time.sleep(0.2)
        raise AssertionError(f"{selector} could not be used")

    def record(self, prefix: str, text: str) -> None:
        """Press Record, say something, press Stop, and wait for what the page makes of it."""
        seconds = self._speaker.say(text)
        self.press(f"#{prefix}-record")
        self.there(f"#{prefix}-stop")
        time.sleep(seconds + 0.2)  # a microphone hears in real time
        self.press(f"#{prefix}-stop")
        self.there(f"#{prefix}-record")

    def idle(self) -> None:
        """Wait until no work is under way."""
        self.until("!document.querySelector('.job')", 300.0)


@pytest.fixture
def speaker(tmp_path: Path) -> Speaker:
    found = Speaker(tmp_path / "microphone.wav")
    found.say("Hello.")
    return found


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Gives the next link of a server that runs in its own process; Ctrl-C ends it cleanly."""
    options = ["ui", "--vault", str(tmp_path / "vault"), "--no-browser", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    def read() -> str:
        assert process.stdout is not None
        lines = ""
        while not lines.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            lines += line
        return str(json.loads(lines)["link"])

    yield read
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert PASSPHRASE not in errors


@pytest.fixture
def browser(speaker: Speaker, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={speaker.path}%noloop", "--window-size=390,844",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield found
    found.quit()


def test_a_life_at_the_page(
    browser: webdriver.Chrome,
    speaker: Speaker,
    link: Callable[[], str],
    passage: tuple[str, ...],
    tmp_path: Path,
) -> None:
    first = link()
    address = first.partition("/open")[0]
    person = Person(browser, speaker)

    # Without the link there is nothing; with it, once.
    browser.get(address)
    assert "Open the link" in browser.page_source
    browser.get(first)
    person.make_a_vault()

    # Enrol: terms, sentences, the sentence of the moment, signature.
    person.agree_to_terms()
    # Longer than the page's prompts, so that few of them make the 20 s that an enrolment asks for.
    for number, spoken in enumerate(passage, start=1):
        person.until(f"document.querySelector('h3')?.textContent === 'Sentence {number} of 12'")
        person.record("take", spoken)
        assert person.text(".verdict-line").startswith("Good")
        person.press("#next")
    person.press("#recordings-done")
    # A busy machine drops sound, and digits are misheard: then it is said again, as people do.
    for _ in range(3):
        person.there("#ask, #statement-record")
        if browser.find_elements(By.ID, "ask"):
            person.press("#ask")
        sentence = person.text("#sentence")
        assert "I, Anna Miller, allow The Choir" in sentence
        person.record("statement", sentence)
        person.press("#sign")
        # Somebody looks elsewhere meanwhile, and does not come back to the first form.
        ended = "/nrolled/.test(document.querySelector('#main > h2')?.textContent)"
        person.until(f"document.querySelector('.job') || {ended}")
        browser.execute_script(WATCH_FOR_TERMS)
        person.until(ended, 400.0)
        assert not browser.execute_script("return window.lost")
        if person.text("#main > h2") == "Enrolled and signed":
            break
        outcome = person.text("#main")
        person.press("#back-to-enrolment")
        person.press("#recordings-done")
    else:
        pytest.fail(f"refused three times: {outcome}")

    # A voice of one's own, and a recording converted into it, side by side.
    person.press("#to-voices")
    person.type("#voice-steps", "2")
    person.press("#make-voice")
    person.until("document.querySelector('.files')?.textContent.includes('me.voice')", 300.0)
    voice = tmp_path / "voices" / "me.voice"
    assert voice.read_bytes().startswith(b"chorister sealed voice 1")
    person.record("source", "Nobody heard the bell above the noise of the crowd.")
    person.press("#convert")
    person.idle()
    person.until("document.querySelectorAll('.clip audio').length === 2", 180.0)
    lengths = browser.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([...document.querySelectorAll('.clip audio')].map((a) => new Promise((ok) =>"
        "{ a.onloadedmetadata = () => ok(a.duration); a.onerror = () => ok(-1); a.load(); "
        "a.preload = 'auto'; }))).then(done)"
    )
    assert lengths[0] == pytest.approx(lengths[1], abs=0.05)
    assert lengths[0] > 2.0

    # What is on record, and that all of it fits a small window.
    for view, said in (
        ("budget", "Nothing is spent"),
        ("ledger", "Ledger"),
        ("consent", "Your consent"),
    ):
        browser.get(f"{address}/#{view}")
        person.until(f"document.querySelector('h2')?.textContent === '{said}'")
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= browser.execute_script("return window.innerWidth")

    # Withdraw: not by another word; then nothing is left that opens.
    person.type("#word", "yes")
    person.press("#withdraw")
    assert "Nothing was done" in person.text("#alert")
    assert voice.exists()
    person.type("#word", "withdraw")
    person.press("#withdraw")
    person.until("document.querySelector('h2')?.textContent === 'This voice was withdrawn'")
    assert not voice.exists()
    assert not (tmp_path / "vault" / "vault.json").exists()
    assert not (tmp_path / "vault" / "items").exists()
    assert (tmp_path / "vault" / "receipt-withdrawal.json").exists()
    browser.get(f"{address}/receipt/withdrawal")
    assert browser.find_element(By.TAG_NAME, "h1").text == "Withdrawal receipt"

    # The browser had nothing to complain of but the refusals above: no policy was in the way.
    for entry in browser.get_log("browser"):
        if entry["level"] == "SEVERE":
            assert "status of 4" in entry["message"], entry["message"]


def test_no_microphone_is_on_without_its_stop_button(
    browser: webdriver.Chrome, speaker: Speaker, link: Callable[[], str]
) -> None:
    person = Person(browser, speaker)
    browser.get(link())
    person.make_a_vault()
    person.agree_to_terms()
    person.there("#take-record")
    browser.execute_script(
        "const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "window.heard = []; window.delay_ms = 0; window.asked = 0;"
        "navigator.mediaDevices.getUserMedia = async (wanted) => { window.asked += 1;"
        "await new Promise((ok) => setTimeout(ok, window.delay_ms));"
        "const stream = await ask(wanted); window.heard.push(...stream.getTracks());"
        "return stream; }"
    )
    live = "window.heard.filter((one) => one.readyState === 'live').length"

    # Another tab was looked at meanwhile, or some work ended: the page asks its server anew.
    person.press("#take-record")
    person.there("#take-stop")
    browser.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
    time.sleep(1.0)
    assert browser.find_elements(By.ID, "take-stop")
    # Elsewhere on the page there is none to be stopped.
    browser.execute_script("location.hash = '#ledger'")
    person.there("#ledger")
    person.until(f"{live} === 0")

    # The microphone is granted only after the person went on.
    browser.execute_script("location.hash = '#enrol'; window.delay_ms = 1500")
    person.press("#take-record")
    person.until("window.asked === 2")
    browser.execute_script("location.hash = '#ledger'")
    person.until("window.heard.length === 2")
    person.until(f"{live} === 0")
    assert not browser.find_elements(By.ID, "take-stop")
