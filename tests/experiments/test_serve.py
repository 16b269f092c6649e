"""serve.py as a process: who comes at once, slowly, or never ends, and how the process ends."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from ihas_jax.serving.storage import load_bundle

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "tests" / "serving" / "bundles" / "jax_0_10" / "compiled"


class Service:
    """A process that serves, and its address."""

    def __init__(self, *flags):
        command = [sys.executable, str(ROOT / "experiments" / "serve.py"), "--run", str(BUNDLE)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = iter(self.process.stdout.readline, "")
        self.port = int(next(m[1] for line in lines if (m := re.search(r"127.0.0.1:(\d+);", line))))
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data, timeout=60) as answer:
            return json.load(answer)

    def connect(self, text):
        """A connection on which some text was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(text.encode())
        return connection

    def end(self, number):
        """The exit code and the last output after a signal."""
        self.process.send_signal(number)
        return self.process.wait(60), self.process.stdout.read()


@pytest.fixture(scope="module")
def service():
    service = Service("--max-bytes", "100000")
    yield service
    service.end(signal.SIGKILL)
    service.process.stdout.close()


@pytest.fixture(scope="module")
def rows():
    fields = load_bundle(BUNDLE).schema.fields
    return [{f.name: f.values[n % len(f.values)] for f in fields} for n in range(40)]


def test_many_clients_at_once_get_their_own_answers(service, rows):
    bundle = load_bundle(BUNDLE)
    probs = bundle.predict_proba(rows)

    def one(n):
        return service.ask("/predict", rows[n % 40])["probability"]

    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(one, range(320)))
    np.testing.assert_array_equal(np.float32(found), np.tile(probs, 8))


def test_slow_and_broken_clients_hold_nobody_up(service, rows):
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
    slow = [service.connect(text) for text in ("", "POST /pre", head, head + '[{"a":') * 5]
    garbage = service.connect("\x00\x01 nonsense\r\n\r\n")
    assert b"400" in garbage.recv(1000)
    assert "probability" in service.ask("/predict", rows[0])
    for connection in (*slow, garbage):
        connection.close()
    assert service.ask("/health") == {"status": "ok"}


def test_a_huge_body_is_refused_before_it_has_arrived(service):
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n"
    connection = service.connect(head + " " * 200_000)
    assert b" 413 " in connection.recv(1000)
    connection.close()


def test_another_process_can_not_take_the_port(service):
    command = [sys.executable, str(ROOT / "experiments" / "serve.py"), "--run", str(BUNDLE)]
    done = subprocess.run(
        [*command, "--port", str(service.port)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.fullmatch(
        rf"error: --host 127\.0\.0\.1 --port {service.port} can't be listened on \(Address already "
        r"in use\); choose another port, or 0 for a free one\.\n",
        done.stderr,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_signal_ends_the_service(number, code, rows):
    service = Service()
    assert "probability" in service.ask("/predict", rows[0])
    found, output = service.end(number)
    service.process.stdout.close()
    assert found == code
    assert "Traceback" not in output


def test_a_body_that_takes_too_long_is_given_up(rows):
    import asyncio

    from ihas_jax.serving.http.app import Limits, make_app

    app, sent = make_app(load_bundle(BUNDLE), Limits(seconds=0.05)), []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "headers": [],
        "query_string": b"",
    }

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    start = time.monotonic()
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--port", "70000"), "--port must lie between 0 and 65535, not 70000"),
        (("--max-rows", "0"), "--max-rows must be positive, not 0"),
        (("--host", "nowhere.invalid"), "--host nowhere.invalid --port 8000 can't be listened on"),
    ],
)
def test_flags_are_checked(run_script, tmp_path, flags, words):
    done = run_script(tmp_path, "serve.py", "--run", BUNDLE, *flags)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.fixture
def browser():
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.mark.browser
def test_a_person_fills_in_a_row_and_sees_its_prediction(service, browser):
    bundle = load_bundle(BUNDLE)
    fields, wait = bundle.schema.fields, WebDriverWait(browser, 60)

    def shows(row):
        """Whether the page has the prediction of a row, its cluster and what that one keeps."""
        probability, cluster = bundle.predict_proba(row)[0], bundle.assign(bundle.encoder(row))[0]
        kept = bundle.kept[bundle.routes[cluster]]
        cells = browser.find_elements(By.CLASS_NAME, "kept")
        marks = [
            [i.get_attribute("class") for i in c.find_elements(By.TAG_NAME, "i")] for c in cells
        ]
        squares = [[n for n, mark in enumerate(own) if mark == "on"] for own in marks]
        return (
            browser.find_element(By.ID, "probability").text == f"{probability:.4f}"
            and browser.find_element(By.ID, "cluster").text == str(cluster)
            and squares == [list(own) for own in kept]
        )

    browser.get(service.url)
    row = {field.name: field.values[0] for field in fields}
    wait.until(lambda _: shows(row))
    first = browser.find_element(By.ID, "probability").text
    seen = set()
    for n, field in enumerate(fields):
        Select(browser.find_element(By.ID, f"field_{n}")).select_by_visible_text(field.values[-1])
        row[field.name] = field.values[-1]
        wait.until(lambda _: shows(row))
        seen.add(browser.find_element(By.ID, "cluster").text)
    assert seen == {"0", "1"}
    assert browser.find_element(By.ID, "probability").text != first
    select = browser.find_element(By.ID, "field_0")
    Select(select).select_by_visible_text("another value…")
    text = browser.find_element(By.CSS_SELECTOR, "input.other")
    text.send_keys("<b>never seen</b>")
    browser.find_element(By.CSS_SELECTOR, "button").click()
    wait.until(lambda _: shows(row | {fields[0].name: "<b>never seen</b>"}))
    Select(select).select_by_visible_text("(missing)")
    wait.until(lambda _: shows(row | {fields[0].name: None}))
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_a_page_whose_service_has_ended_says_so(browser):
    service = Service()
    browser.get(service.url)
    wait = WebDriverWait(browser, 60)
    wait.until(lambda _: browser.find_element(By.ID, "cluster").text in "01")
    service.end(signal.SIGKILL)
    service.process.stdout.close()
    browser.find_element(By.CSS_SELECTOR, "button").click()
    error = browser.find_element(By.ID, "error")
    wait.until(lambda _: error.text.startswith("The service does not answer ("))
    assert browser.find_element(By.ID, "probability").text == "\u2013"
