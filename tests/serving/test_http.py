"""The service: what requests get, whatever they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from ihas_jax.serving.http.app import Limits, make_app
from ihas_jax.serving.storage import load_bundle

BUNDLES = Path(__file__).parent / "bundles" / "jax_0_10"


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(BUNDLES / "compiled")


@pytest.fixture
def client(bundle):
    return TestClient(make_app(bundle, Limits(rows=50, bytes=20_000)))


@pytest.fixture(scope="module")
def rows(bundle):
    """Rows as they were before encoding; the last of the 40 has two unknown values."""
    ids = json.loads((BUNDLES / "compiled.json").read_text())["ids"]
    fields = bundle.schema.fields
    found = [
        {f.name: (*f.values, "unknown")[i] for f, i in zip(fields, row, strict=True)} for row in ids
    ]
    names = bundle.schema.names
    found[-1] = {name: found[-1][name] for name in names[:-2]} | dict.fromkeys(names[-2:], "never")
    return found


def expected(bundle, rows):
    ids = bundle.encoder(rows)
    return bundle.predict_ids(ids), bundle.assign(ids)


def test_one_row_and_many_are_predicted_as_by_the_bundle(client, bundle, rows):
    probs, clusters = expected(bundle, rows)
    assert set(clusters) == {0, 1}
    answer = client.post("/predict", json=rows)
    assert answer.status_code == 200
    assert [one["cluster"] for one in answer.json()] == clusters.tolist()
    found = np.float32([one["probability"] for one in answer.json()])
    np.testing.assert_array_equal(found, probs)
    one = client.post("/predict", json=rows[3] | {"more": {"anything": []}})
    assert one.json() == answer.json()[3]
    assert client.post("/predict", json=[]).json() == []


def test_a_model_without_clusters_answers_without_one(bundle, rows):
    alone = dataclasses.replace(bundle, models=bundle.models[:1], routes=(0,), router=None)
    client = TestClient(make_app(alone, Limits()))
    assert client.post("/predict", json=rows[0]).json().keys() == {"probability"}


def test_values_are_spelled_as_on_the_command_line(client, bundle, rows):
    row = rows[0] | {bundle.schema.names[0]: None, bundle.schema.names[1]: 3}
    found = client.post("/predict", json=row).json()["probability"]
    assert np.float32(found) == bundle.predict_proba(row)[0]


ODD = (b"NaN", b"Infinity", b"-Infinity", b"1e999")
ROW = '{"context_0": 1, "context_0": 2}'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The body is not JSON (Expecting value"),
        (b"{", "The body is not JSON"),
        (b"\xff\xfe", "The body is not JSON ('utf-8' codec"),
        (b"[" * 10_000, "The body is not JSON (maximum recursion depth"),
        (b'{"a": ' + b"1" * 5000 + b"}", "The body is not JSON (Exceeds the limit"),
        *((b'{"a": %s}' % n, f"({n.decode()} is no finite number; null is a missing") for n in ODD),
        (ROW.encode(), "an object has 'context_0' twice"),
        (b"3", 'The body is a number; send one row as an object, such as {"context_0": ...}'),
        (b'"text"', "The body is text; "),
        (b"null", "The body is null; "),
        (b"[3]", "Row 0, counted from 0, is a number; "),
        (b"{}", "The row lacks 'context_0', 'context_1', "),
    ],
)
def test_what_is_no_row_is_said(client, body, words):
    answer = client.post("/predict", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], "Row 1, counted from 0, has a list as 'own_0_0'; send one row"),
        ({}, "Row 1, counted from 0, has an object as 'own_0_0'"),
        ("\ud800", "'own_0_0' holds '\\ud800', which is not Unicode text"),
    ],
)
def test_a_value_that_is_no_value_is_named_with_its_row(client, rows, value, words):
    body = json.dumps([rows[0], rows[1] | {"own_0_0": value}])
    answer = client.post("/predict", content=body)
    assert (answer.status_code, words in answer.json()["error"]) == (400, True)


def test_a_row_that_lacks_a_field_is_named(client, rows):
    short = {name: value for name, value in rows[0].items() if name != "shared_0"}
    answer = client.post("/predict", json=[rows[0], short])
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("Row 1, counted from 0, lacks 'shared_0'; give every")


def test_too_much_is_refused(client, rows):
    answer = client.post("/predict", json=rows[:1] * 51)
    assert answer.status_code == 413
    assert "has 51 rows, and the service takes 50 at once" in answer.json()["error"]
    assert client.post("/predict", json=rows[:1] * 50).status_code == 200
    answer = client.post("/predict", content=b" " * 20_001)
    assert answer.status_code == 413
    assert "more than 20,000 bytes" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("PUT", "/predict", 405),
        ("POST", "/health", 405),
        ("GET", "/nothing", 404),
        ("GET", "/page.py", 404),
        ("GET", "/..%2fapp.py", 404),
        ("GET", "/page.js/../../app.py", 404),
    ],
)
def test_other_requests_are_refused_as_json(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}


def test_a_page_of_another_site_reaches_no_service_on_loopback(bundle):
    app = make_app(bundle, Limits(), ("localhost",))
    with TestClient(
        app, base_url="http://evil.test"
    ) as client:  # the app starts whatever its hosts
        answer = client.get("/health")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "The Host of the request is 'evil.test'; call the service localhost."
    }
    assert client.get("/health", headers={"Host": "localhost:8000"}).json() == {"status": "ok"}


def test_what_happens_is_counted(client, bundle, rows):
    client.post("/predict", json=rows)
    client.post("/predict", content=b"{")
    client.get("/nothing/of/this")
    text = client.get("/metrics").text
    clusters = bundle.assign(bundle.encoder(rows))
    for line in (
        'ihas_requests_total{path="/predict",status="200"} 1.0',
        'ihas_requests_total{path="/predict",status="400"} 1.0',
        'ihas_request_seconds_count{path="/predict"} 2.0',
        f'ihas_rows_total{{cluster="0"}} {(clusters == 0).sum()}.0',
        f'ihas_rows_total{{cluster="1"}} {(clusters == 1).sum()}.0',
    ):
        assert line in text
    others = (bundle.encoder(rows) == np.array(bundle.schema.sizes) - 1).sum(axis=0)
    assert others[-1] > 0
    for name, count in zip(bundle.schema.names, others, strict=True):
        assert (f'ihas_other_values_total{{field="{name}"}} {count}.0' in text) == (count > 0)
    assert "nothing" not in text  # paths of strangers would fill the memory


def test_a_client_learns_what_the_model_keeps(client, bundle):
    facts = client.get("/model").json()
    assert [field["name"] for field in facts["fields"]] == list(bundle.schema.names)
    assert facts["fields"][0]["values"] == list(bundle.schema.fields[0].values)
    kept = [bundle.kept[model] for model in bundle.routes]
    assert facts["kept"] == json.loads(json.dumps(kept))
    assert facts["parameters"] == bundle.parameters + bundle.router_parameters
    assert facts["dim"] == bundle.config.model.dim


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")],
)
def test_the_page_is_there_and_loads_nothing_from_elsewhere(client, path, kind):
    answer = client.get(path)
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["content-security-policy"] == "default-src 'self'; img-src data:"
    assert "http:" not in answer.text and "https:" not in answer.text
