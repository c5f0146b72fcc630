"""Attacks on the console: what gets in nowhere, and what does nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from runtara_trio import Client, ConfigError, Operator, Queue, SharedBackend, open_worker
from runtara_trio.console import app
from runtara_trio.console.people import Person, Role, Tokens, TrustedProxy, everybody, first_of

from . import shop
from .conftest import BASE, Visitor, visiting

pytestmark = pytest.mark.alone

OPERATOR, VIEWER = "o" * 20, "v" * 20
TOKENS = f"# who may\noperator ann {OPERATOR}\n\nviewer vic {VIEWER}\n"
NASTY = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}javascript:alert(1)"
CANCEL = {"act": "instance", "what": "cancel", "id": "waits", "sure": "1"}


def has_markup(page: str) -> bool:
    return "<script>alert" in page or "<img src=x" in page or ">49<" in page


async def still_runs(operator: Operator) -> bool:
    return (await operator.show("waits")).summary.status != "cancelled"


# ---- what instances contain is data


async def test_markup_in_every_field_is_text(
    backend: SharedBackend, client: Client, visitor: Visitor, operator: Operator
) -> None:
    await operator.set_queue(Queue("a<b>", limit=1))
    await client.start(
        NASTY[:60], NASTY, id=NASTY, queue="a<b>", key=NASTY[:60], attributes={NASTY[:60]: NASTY}
    )
    await operator.send_signal(NASTY, NASTY, NASTY)
    async with open_worker(backend, shop.WORKFLOWS, name="<script>alert(1)</script>"):
        failed = await client.start(shop.failing, id="<img src=x onerror=alert(1)>")
        with pytest.raises(Exception, match="such"):
            await failed.result(timeout=60)
        await client.start(shop.order, 5, id="<b>order")
        await shop.until_waiting(operator, "<b>order")
        for path in ("/workers", "/queues", "/", "/waiting", "/schedules"):
            assert not has_markup(await visitor.get(path))
    for path, query in (
        ("/instance", {"id": NASTY}),
        ("/instance", {"id": NASTY, "as": "table"}),
        ("/instance", {"id": "<img src=x onerror=alert(1)>"}),
        ("/answer", {"id": NASTY, "step": NASTY}),
        ("/compare", {"a": NASTY, "b": NASTY}),
        ("/audit", {"id": NASTY}),
        ("/", {"prefix": NASTY, "workflow": NASTY[:60], "attribute": f"{NASTY[:60]}=1"}),
    ):
        page = await visitor.get(path, params=query)
        assert not has_markup(page)
        assert 'href="javascript:' not in page
    for path, query in (
        ("/step", {"id": "<b>order", "step": "approval", "find": NASTY}),
        ("/step", {"id": "<b>order", "step": "durable::charge::[5]", "find": "</mark>"}),
        ("/chunk", {"id": "<b>order", "number": "0"}),
    ):
        assert not has_markup(await visitor.get(path, params=query))
    exported = await visitor.http.get("/export", params={"id": NASTY})
    assert exported.headers["content-type"] == "application/json"
    assert exported.headers["content-disposition"].startswith("attachment")
    for path in ("/instance", "/step", "/chunk", "/export"):
        answer = await visitor.http.get(path, params={"id": "x" + NASTY, "step": NASTY})
        assert answer.status_code in (400, 404)
        assert not has_markup(answer.text)


async def test_the_policy_lets_no_script_but_ours_run(visitor: Visitor) -> None:
    for path in ("/workers", "/static/console.css", "/unknown"):
        headers = (await visitor.http.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    for template in Path(shop.__file__).parents[2].glob("src/runtara_trio/console/templates/*"):
        assert not re.search(r"\son\w+=|style=|<script>", template.read_text()), template


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", "a/b?c#d&e=f%2F", "שלום", "a\tb", "\N{PILE OF POO}", "." * 400]
)
async def test_ids_of_every_kind(visitor: Visitor, client: Client, id: str) -> None:
    await client.start(shop.order, 1, id=id)
    page = await visitor.get("/")
    (link,) = re.findall(r'href="(/instance\?id=[^"]*)"', page)
    assert "order" in await visitor.get(link.replace("&amp;", "&"))


# ---- who is asked


async def test_a_form_of_another_page_does_nothing(seeded: Visitor, operator: Operator) -> None:
    token = await seeded.token()
    for headers, fields in (
        ({"origin": "https://evil.example"}, {"token": token}),
        ({"origin": "null"}, {"token": token}),
        ({"origin": "http://localhost:9999"}, {"token": token}),
        ({"sec-fetch-site": "cross-site"}, {"token": token}),
        ({"sec-fetch-site": "same-site"}, {"token": token}),
        ({}, {"token": "0" * 64}),
        ({}, {}),
    ):
        answer = await seeded.http.post("/act", data={**CANCEL, **fields}, headers=headers)
        assert answer.status_code == 403
        assert await still_runs(operator)
    mine = {**CANCEL, "token": token}
    assert (await seeded.http.post("/act", data=mine, headers={"origin": BASE})).status_code == 200
    assert not await still_runs(operator)


async def test_the_token_of_another_browser_is_none_of_ours(
    seeded: Visitor, backend: SharedBackend, operator: Operator
) -> None:
    token = await seeded.token()
    seeded.http.cookies.clear()
    answer = await seeded.http.post("/act", data={**CANCEL, "token": token})
    assert answer.status_code == 403
    assert await still_runs(operator)


async def test_a_name_that_somebody_else_has_given_this_machine(backend: SharedBackend) -> None:
    async with visiting(
        app(backend, authorize=everybody, allowed_hosts=["console.example"])
    ) as visitor:
        for host, status in (
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("[bad", 421),
            ("console.example", 200),
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
        ):
            answer = await visitor.http.get("/static/console.css", headers={"host": host})
            assert answer.status_code == status, host
    async with visiting(app(backend, authorize=everybody, allowed_hosts=None)) as visitor:
        answer = await visitor.http.get("/static/console.css", headers={"host": "any.example"})
        assert answer.status_code == 200


async def test_it_goes_back_to_its_own_pages_alone(seeded: Visitor) -> None:
    for back in ("https://evil.example/", "//evil.example", "/\\evil.example", "/\r\nx: y", "x"):
        for what in ("pause", "resume"):
            data = {**CANCEL, "what": what, "token": await seeded.token(), "back": back}
            answer = await seeded.http.post("/act", data=data, follow_redirects=False)
            assert (answer.status_code, answer.headers["location"][:2]) == (303, "/?")


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/hosts"]
)
async def test_a_path_that_climbs(visitor: Visitor, path: str) -> None:
    answer = await visitor.http.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


async def test_what_is_too_much(visitor: Visitor, seeded: Visitor) -> None:
    assert "at most" in await visitor.get("/?prefix=" + "x" * 5000, 400)
    await visitor.get("/?version=" + "9" * 400, 400)
    await visitor.get("/?before=nonsense", 400)
    await visitor.get("/waiting?after=nonsense", 400)
    await visitor.get("/?created_after=yesterday", 400)
    await visitor.get("/?status=unheard-of", 400)
    await visitor.get("/instance?id=done&from=1e400&to=-5")
    await visitor.get("/chunk?id=done&number=" + "9" * 5000, 400)
    await visitor.get("/?created_after=0001-01-01T00:00%2B23:59", 400)
    await visitor.get('/waiting?after=[1000000000000000000000000000000,"",""]', 400)
    data = {**CANCEL, "token": await seeded.token(), "payload": "x" * 3_000_000}
    assert (await visitor.http.post("/act", data=data)).status_code == 413


# ---- roles


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(TOKENS)


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_without_a_token_nobody_sees_anything(
    seeded: Visitor, backend: SharedBackend, tokens: Tokens
) -> None:
    async with visiting(app(backend, tokens=tokens)) as visitor:
        for path in ("/instance?id=done", "/metrics", "/export?id=done", "/?live=1"):
            answer = await visitor.http.get(path, follow_redirects=False)
            assert answer.status_code in (303, 401)
            assert "done" not in answer.text
        assert (await visitor.http.get("/?live=1")).status_code == 401
        assert (await visitor.http.post("/act", data=CANCEL)).status_code == 401
        answer = await visitor.http.get("/metrics", headers=bearing("x" * 20))
        assert "Log in" in answer.text
        assert "runtara_instances" in await visitor.get("/metrics", headers=bearing(VIEWER))


async def test_a_viewer_looks_at_no_payload_and_does_not_act(
    seeded: Visitor, backend: SharedBackend, operator: Operator, tokens: Tokens
) -> None:
    async with visiting(app(backend, tokens=tokens)) as visitor:
        visitor.http.headers.update(bearing(VIEWER))
        page = await visitor.get("/instance?id=done")
        assert "charge 5 cents" in page
        assert "approved by bo" not in page
        assert "/act" not in page
        assert "receipt" not in await visitor.get("/step?id=done&step=durable::charge::[5]")
        await visitor.get("/export?id=done", 403)
        assert "/answer" not in await visitor.get("/waiting")
        assert (await visitor.http.post("/act", data=CANCEL)).status_code == 403
        assert await still_runs(operator)


async def test_logging_in_and_out(
    seeded: Visitor, backend: SharedBackend, tokens: Tokens, operator: Operator
) -> None:
    async with visiting(app(backend, tokens=tokens)) as visitor:
        page = await visitor.get("/")
        form = {"token": page.partition('name="token" value="')[2].partition('"')[0]}
        wrong = await visitor.http.post("/login", data={**form, "secret": "wrong"})
        assert wrong.status_code == 401
        assert "nobody" in wrong.text
        entered = await visitor.http.post(
            "/login", data={**form, "secret": OPERATOR}, follow_redirects=False
        )
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert OPERATOR not in cookie
        assert "ann, operator" in await visitor.get("/workers")
        await visitor.act(act="instance", what="cancel", id="waits")
        (record,) = (await operator.audit()).records
        assert (record.who, record.what) == ("ann", "cancel")
        await visitor.http.post("/logout", data=form)
        assert "Log in" in await visitor.get("/")
    forged = Tokens(TOKENS.replace(OPERATOR, "x" * 20)).session(Person("ann", Role.OPERATOR))
    async with visiting(app(backend, tokens=tokens)) as visitor:
        visitor.http.cookies.set("runtara_session", forged)
        assert "Log in" in await visitor.get("/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no line"),
        ("admin a " + "x" * 20, "role viewer, operator or program"),
        ("viewer a short", "under 16"),
        ("viewer a", "role name token"),
    ],
)
def test_invalid_token_files(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Tokens(text)


async def test_a_proxy_is_believed_from_its_addresses_alone(backend: SharedBackend) -> None:
    def scope(address: str, **headers: str) -> dict[str, Any]:
        pairs = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ]
        return {"type": "http", "client": (address, 1), "headers": pairs}

    proxy = TrustedProxy(["10.0.0.0/8"])
    known = {"x_forwarded_user": "ann", "x_forwarded_role": "viewer"}
    assert proxy.authorize(scope("10.1.2.3", **known)) == ("ann", "viewer")
    assert proxy.authorize(scope("10.1.2.3", x_forwarded_user="ann")) is None
    assert proxy.authorize(scope("10.1.2.3", **{**known, "x_forwarded_role": "root"})) is None
    assert proxy.authorize(scope("127.0.0.1", **known)) is None
    assert proxy.authorize({"type": "http", "headers": []}) is None
    both = first_of(proxy.authorize, Tokens(TOKENS).authorize)
    assert both(scope("127.0.0.1", authorization=f"Bearer {OPERATOR}")) == ("ann", "operator")
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/8"):
        TrustedProxy(["everywhere"])


async def test_read_only_and_without_payloads(seeded: Visitor, backend: SharedBackend) -> None:
    async with visiting(
        app(backend, authorize=everybody, read_only=True, hide_payloads=True)
    ) as visitor:
        page = await visitor.get("/instance?id=done")
        assert "read-only" in page
        assert "/act" not in page
        assert "approved by bo" not in page
        assert (await visitor.http.post("/act", data=CANCEL)).status_code == 403


async def test_nobody_is_let_in_by_default(backend: SharedBackend) -> None:
    with pytest.raises(ConfigError, match="say who may look and act"):
        app(backend)


async def test_cookies_of_a_console_behind_a_proxy(backend: SharedBackend) -> None:
    for https in (False, True):
        async with visiting(app(backend, authorize=everybody, https=https)) as visitor:
            answer = await visitor.http.get("/workers")
            assert ("secure" in answer.headers["set-cookie"].lower()) is https


async def test_an_authorize_of_ones_own(seeded: Visitor, backend: SharedBackend) -> None:
    async def authorize(scope: Any) -> tuple[str, str] | None:
        name = dict(scope["headers"]).get(b"x-user")
        return None if name is None else (name.decode(), "operator")

    async with visiting(app(backend, authorize=authorize)) as visitor:
        assert "log in" in await visitor.get("/", 401)
        assert "zoe, operator" in await visitor.get("/workers", headers={"x-user": "zoe"})
