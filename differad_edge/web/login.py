"""The login page: a form, and the cookie that it earns."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from differad_edge.web.assets import static_text
from differad_edge.web.bodies import read_body
from differad_edge.web.problems import Problem
from differad_edge.web.session import SESSION_DAYS, Doorkeeper, address_of, too_many_attempts

__all__ = ["login_routes"]

_FORM_BYTES = 4096


def login_routes(doorkeeper: Doorkeeper | None) -> APIRouter:
    """/login and /logout; without a token there is nothing to log in to."""
    routes = APIRouter()
    page = static_text("login.html")
    # The page carries its own style, so that nothing else need be open; the policy allows exactly this one.
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None  # it is our own file
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )

    def form(status: int, message: str = "") -> Response:
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
        return Response(page.replace("{{message}}", html.escape(message)), status, headers, "text/html")

    @routes.get("/login")
    async def ask() -> Response:
        return RedirectResponse("/", 303) if doorkeeper is None else form(200)

    @routes.post("/login")
    async def log_in(request: Request) -> Response:
        if doorkeeper is None:
            return RedirectResponse("/", 303)
        address = address_of(request.scope)
        if doorkeeper.must_wait(address):
            return too_many_attempts()
        try:
            fields = parse_qs((await read_body(request, _FORM_BYTES)).decode("utf-8"), max_num_fields=4)
        except ValueError as error:
            raise Problem(422, "invalid-message", f"form: cannot be read: {error}") from error
        if not doorkeeper.accepts(fields.get("token", [""])[0].strip(), address):
            return form(401, "This is not the token.")
        answer = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
        answer.set_cookie(
            doorkeeper.cookie,
            doorkeeper.new_session(),
            max_age=SESSION_DAYS * 86_400,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @routes.post("/logout")
    async def log_out() -> Response:
        answer = RedirectResponse("/login", 303)
        if doorkeeper is not None:
            answer.delete_cookie(doorkeeper.cookie, httponly=True, samesite="strict")
        return answer

    return routes
