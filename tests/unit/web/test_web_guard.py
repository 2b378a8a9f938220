"""Who may ask: token, cookie, Host, Origin, and the headers of every answer."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from web_client import TOKEN, InProcess
from web_fakes import FakeLine

from differad_edge.web.session import SESSION_DAYS, Attempts, Doorkeeper

BEARER = {"Authorization": f"Bearer {TOKEN}"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
EVERY_PATH = [
    ("GET", "/"),
    ("GET", "/static/main.js"),
    ("GET", "/static/tokens.css"),
    ("GET", "/favicon.ico"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/api/status"),
    ("GET", "/api/stream"),
    ("GET", "/api/results"),
    ("GET", "/api/results/1/image"),
    ("GET", "/api/live/main.jpg"),
    ("GET", "/api/products/gasket-a"),
    ("GET", "/api/nothing"),
    ("POST", "/logout"),
    *(("POST", f"/api/{name}") for name in ("trigger", "inspect", "select", "review", "register", "snapshot")),
    *(("POST", f"/api/{name}") for name in ("calibrate", "reload", "reset", "halt")),
]


@pytest.fixture
def guarded(ask: Callable[..., InProcess]) -> InProcess:
    return ask(token=TOKEN)


def log_in(client: InProcess, token: str = TOKEN, **options: object) -> httpx.Response:
    return client.post("/login", data={"token": token}, **options)


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Cookie": f"token={TOKEN}"},
    ],
    ids=["none", "wrong", "empty", "basic", "bare", "cookie"],
)
def test_without_the_token_nothing_is_answered(
    guarded: InProcess, line: FakeLine, method: str, path: str, headers: dict[str, str]
) -> None:
    response = guarded.request(method, path, headers={**headers, "Content-Type": "application/json"}, content=b"{}")
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthorized"
    assert response.headers["www-authenticate"] == "Bearer"
    assert line.calls == []


def test_the_token_is_no_part_of_an_address(guarded: InProcess) -> None:
    assert guarded.get("/api/status", params={"token": TOKEN}).status_code == 401


def test_liveness_needs_no_token(guarded: InProcess) -> None:
    assert guarded.get("/healthz").status_code == 200


def test_a_bearer_is_let_in(guarded: InProcess, line: FakeLine) -> None:
    assert guarded.get("/api/status", headers=BEARER).status_code == 200
    assert guarded.get("/api/status", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
    assert guarded.post("/api/halt", headers=BEARER, json={}).status_code == 200
    assert line.called("halt") == [{"station": None}]


def test_a_person_logs_in_once(guarded: InProcess) -> None:
    sent = guarded.get("/", headers={"Accept": "text/html,*/*"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    page = guarded.get("/login")
    assert page.status_code == 200
    assert 'type="password"' in page.text
    done = log_in(guarded)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    cookie = done.headers["set-cookie"]
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={SESSION_DAYS * 86400}"):
        assert attribute in cookie
    assert TOKEN not in cookie
    assert guarded.get("/api/status").status_code == 200
    assert guarded.get("/").status_code == 200
    out = guarded.post("/logout")
    assert out.headers["location"] == "/login"
    assert guarded.get("/api/status").status_code == 401


def test_over_tls_the_cookie_stays_there(ask: Callable[..., InProcess]) -> None:
    assert "Secure" in log_in(ask(token=TOKEN, base_url="https://127.0.0.1:8080")).headers["set-cookie"]
    assert "Secure" not in log_in(ask(token=TOKEN)).headers["set-cookie"]


def test_a_wrong_token_logs_nobody_in(guarded: InProcess) -> None:
    refused = log_in(guarded, "not-the-token-at-all")
    assert refused.status_code == 401
    assert "set-cookie" not in refused.headers
    assert "not-the-token-at-all" not in refused.text
    assert guarded.post("/login", content=b"\xff\xfe=", headers=FORM).status_code in (401, 422)
    assert guarded.post("/login", content=b"a=1&" * 50, headers=FORM).status_code == 422
    assert guarded.post("/login", content=b"token=" + b"x" * 5000, headers=FORM).status_code == 413


def test_without_a_token_there_is_no_login(http: InProcess) -> None:
    assert http.get("/login").headers["location"] == "/"
    assert log_in(http).headers["location"] == "/"


def test_a_guesser_has_to_wait_and_others_do_not(guarded: InProcess) -> None:
    log_in(guarded)
    cookie_still_works = dict(guarded.get("/api/status").request.headers)["cookie"]
    for _ in range(10):
        assert guarded.get("/api/status", headers={"Authorization": "Bearer x", "Cookie": ""}).status_code == 401
    blocked = guarded.get("/api/status", headers={**BEARER, "Cookie": ""})
    assert (blocked.status_code, blocked.headers["retry-after"]) == (429, "60")
    assert log_in(guarded, headers={"Cookie": ""}).status_code == 429
    assert guarded.get("/api/status", headers={"Cookie": cookie_still_works}).status_code == 200


def test_attempts_are_forgotten_after_a_minute_and_do_not_pile_up() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(10):
        assert not attempts.must_wait("a")
        attempts.failed("a")
    assert attempts.must_wait("a")
    assert not attempts.must_wait("b")
    now[0] = 60.1
    assert not attempts.must_wait("a")
    for number in range(5000):
        attempts.failed(f"address {number}")
    assert len(attempts._failures) == 1000


def test_a_session_ends_by_date_and_with_another_token() -> None:
    now = [1_000_000.0]
    door = Doorkeeper(TOKEN, wall_clock=lambda: now[0])
    session = door.new_session()

    def knows(keeper: Doorkeeper, value: str) -> bool:
        return keeper.knows(httpx.Headers({"cookie": f"{keeper.cookie}={value}"}))  # type: ignore[arg-type]

    assert knows(door, session)
    assert not knows(Doorkeeper("another-token-of-length"), session)
    end, _, proof = session.partition(".")
    for forged in (f"{int(end) + 1}.{proof}", f"{end}.{proof[:-1]}", f".{proof}", end, "", "x.y", f"{end}.{TOKEN}"):
        assert not knows(door, forged)
    now[0] += SESSION_DAYS * 86_400
    assert not knows(door, session)


# -- Host and Origin --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST", "127.0.0.1"])
def test_loopback_names_are_answered(http: InProcess, host: str) -> None:
    assert http.get("/api/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.0.7:8080"],
)
def test_a_name_that_was_made_to_point_here_is_not(http: InProcess, line: FakeLine, host: str) -> None:
    for method, path in (("GET", "/api/status"), ("GET", "/"), ("POST", "/api/halt")):
        response = http.request(method, path, headers={"Host": host}, json={})
        assert (response.status_code, response.json()["error"]["code"]) == (403, "host-not-allowed")
    assert line.calls == []


@pytest.mark.parametrize("host", ["", "127.0.0.1:80:80", "a b", "user@127.0.0.1", "127.0.0.1/x"])
def test_a_host_that_is_none(http: InProcess, host: str) -> None:
    assert http.get("/healthz", headers={"Host": host}).status_code == 400


def test_two_hosts_are_refused(http: InProcess) -> None:
    response = http.get("/healthz", headers=[("Host", "127.0.0.1"), ("Host", "evil.example")])
    assert response.status_code == 400


def test_beyond_loopback_names_are_free_and_the_token_guards(ask: Callable[..., InProcess]) -> None:
    plant = ask(token=TOKEN, address="0.0.0.0:8080", base_url="http://line3.plant:8080")
    assert plant.get("/api/status").status_code == 401
    assert plant.get("/api/status", headers=BEARER).status_code == 200


def test_the_address_it_is_bound_to_is_a_name_too(ask: Callable[..., InProcess]) -> None:
    assert ask(address="127.0.0.5:8080", base_url="http://127.0.0.5:8080").get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "null"},
        {"Origin": "http://[broken"},
        {"Origin": "file://127.0.0.1:8080"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=lambda headers: "".join(headers.values()),
)
@pytest.mark.parametrize("path", [path for method, path in EVERY_PATH if method == "POST"])
def test_no_other_page_can_act(
    ask: Callable[..., InProcess], line: FakeLine, path: str, headers: dict[str, str]
) -> None:
    for client in (ask(), ask(token=TOKEN)):
        response = client.post(path, headers={**BEARER, **headers}, json={"product": "gasket-b"})
        assert (response.status_code, response.json()["error"]["code"]) == (403, "origin-not-allowed")
    assert line.calls == []


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://127.0.0.1:8080"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_its_own_page_and_programs_can(http: InProcess, headers: dict[str, str]) -> None:
    assert http.post("/api/halt", headers=headers, json={}).status_code == 200


def test_login_too_is_only_for_its_own_page(guarded: InProcess) -> None:
    assert log_in(guarded, headers={"Origin": "http://evil.example"}).status_code == 403


# -- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/status", "/api/nothing", "/static/main.js", "/login", "/healthz"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_answer_carries_the_policy(ask: Callable[..., InProcess], path: str, token: str | None) -> None:
    for host in ("127.0.0.1", "evil.example"):
        headers = ask(token=token).get(path, headers={"Host": host}).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_no_preflight_is_granted(http: InProcess) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    response = http.request("OPTIONS", "/api/halt", headers=headers)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_the_login_page_is_styled_by_its_own_hash_alone(guarded: InProcess) -> None:
    page = guarded.get("/login")
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/]{43}='", page.headers["content-security-policy"])
    assert "script" not in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "style=" not in page.text
