"""The files of the page: all there, nothing else, nothing inline, nothing from elsewhere."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from web_client import InProcess

import differad_edge.web
from differad_edge.web import WebServer

STATIC = Path(differad_edge.web.__file__).parent / "static"
FILES = sorted(path.name for path in STATIC.iterdir())
SCRIPTS = [name for name in FILES if name.endswith(".js")]


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_type(http: InProcess, name: str) -> None:
    response = http.get(f"/static/{name}")
    assert response.status_code == 200
    kinds = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    assert response.headers["content-type"].startswith(kinds[Path(name).suffix])
    again = http.get(f"/static/{name}", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/%2e%2e%2fapp.py",
        "/static/..\\app.py",
        "/static/..%5capp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/",
        "/static/main.js%00.css",
        "/static/__init__.py",
        "/../../etc/passwd",
        "/api/products/..%2f..%2fetc/reference.jpg",
        "/api/snapshot/..%2f..%2fapp.jpg",
        "/api/live/..%2f..%2fmain.jpg",
    ],
)
def test_nothing_else_can_be_asked_for(serve: Callable[..., WebServer], path: str) -> None:
    connection = http.client.HTTPConnection(serve().address, timeout=10)  # sends the path as it is
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    assert response.status == 404
    assert b"import" not in body
    assert b"root:" not in body
    connection.close()


def test_the_page_loads_only_what_is_there() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    for path in re.findall(r'(?:src|href)="([^"#][^"]*)"', page):
        assert path.startswith("/static/")
        assert (STATIC / path.removeprefix("/static/")).is_file(), path
    for name in SCRIPTS:
        for imported in re.findall(r'from "\./([^"]+)"', (STATIC / name).read_text(encoding="utf-8")):
            assert imported in FILES, f"{name} imports {imported}"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"\son[a-z]+\s*=|\sstyle\s*=|<style|javascript:", page)
    for name in FILES:
        text = (STATIC / name).read_text(encoding="utf-8")
        found = set(re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z.]+[^\s\"')]*", text))
        assert found <= {"http://www.w3.org/2000/svg"}, name


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_writes_html(name: str) -> None:
    text = (STATIC / name).read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser"
    assert not re.search(forbidden, text)


def test_every_icon_that_is_drawn_is_defined() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    defined = set(re.findall(r'<symbol id="i-([^"]+)"', page))
    assert set(re.findall(r'href="#i-([^"]+)"', page)) <= defined
    for name in SCRIPTS:
        assert set(re.findall(r'\bicon\("([A-Za-z]+)"\)', (STATIC / name).read_text(encoding="utf-8"))) <= defined


def test_ids_are_given_once_and_the_scripts_ask_for_those() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    made = {"detail-foot", "part-canvas", "reference-canvas", "part-veil", "reference-veil"}  # by detail.js
    for name in SCRIPTS:
        asked = set(re.findall(r'byId\("([^"]+)"\)', (STATIC / name).read_text(encoding="utf-8")))
        assert asked <= {*ids, *made}, name
