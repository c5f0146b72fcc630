"""What the pages of the console show, and what their forms do, on every store."""

from __future__ import annotations

import re

import msgspec
import pytest
import trio

from runtara_trio import (
    Client,
    Operator,
    Queue,
    RuntaraSdk,
    Schedule,
    SharedBackend,
    open_backend,
    open_runtara,
    open_worker,
    workflow,
)
from runtara_trio.console import app
from runtara_trio.console.people import everybody

from . import shop
from .conftest import Visitor, visiting

PAGES = ("/", "/waiting", "/workers", "/queues", "/schedules", "/compare", "/audit", "/metrics")


@pytest.mark.parametrize("path", PAGES)
async def test_pages_of_an_empty_store(visitor: Visitor, operator: Operator, path: str) -> None:
    await operator.set_queue(Queue("slow"))  # that makes the store
    await visitor.get(path)


async def test_a_store_that_is_not_there(url: str) -> None:
    async with open_backend(url) as backend, visiting(app(backend, authorize=everybody)) as visitor:
        assert "there is no store at" in await visitor.get("/", 503)


async def test_the_list_says_where_each_stands(seeded: Visitor) -> None:
    page = await seeded.get("/")
    assert "no live worker knows unknown 1" in page
    assert "customer=anna" in page
    for status, count in (("completed", 1), ("failed", 1)):
        assert f"{status} <b>{count}</b>" in page
    page = await seeded.get("/?status=failed")
    assert "id=failed" in page
    assert "id=done" not in page
    page = await seeded.get("/?prefix=no&workflow=unknown&no_live_worker=1")
    assert re.findall(r'instance\?id=(\w+)"', page) == ["nobody"]
    page = await seeded.get('/?attribute=customer%3D"anna"')
    assert re.findall(r'instance\?id=(\w+)"', page) == ["done"]
    assert "No instance matches" in await seeded.get("/?prefix=zzz")


async def test_an_instance_in_words_with_its_steps_and_its_data(seeded: Visitor) -> None:
    page = await seeded.get("/instance?id=done")
    for said in (
        "completed",
        "charge 5 cents",
        "signal, done",
        '"approved by bo"',
        "customer=anna",
    ):
        assert said in page
    page = await seeded.get("/instance?id=failed")
    assert "no &lt;b&gt;such&lt;/b&gt; customer" in page
    page = await seeded.get("/instance?id=waits")
    assert "nobody has answered" in page
    assert "/answer?id=waits" in page
    page = await seeded.get("/instance?id=nobody")
    assert "no live worker knows unknown 1" in page
    await seeded.get("/instance?id=unknown", 404)


async def test_a_step_with_what_it_saved_and_what_was_looked_for(seeded: Visitor) -> None:
    page = await seeded.get("/step?id=done&step=durable::charge::[5]&find=rec")
    assert "<mark>rec</mark>eipt" in page
    table = await seeded.get("/instance?id=done&as=table")
    assert "durable::charge::[5]" in table
    exported = msgspec.json.decode(await seeded.get("/export?id=done"))
    assert exported["instance"]["input"] == "[5]"
    await seeded.get("/step?id=done&step=unknown", 404)


async def test_answering_with_a_form_made_from_the_annotation(
    seeded: Visitor, operator: Operator, backend: SharedBackend, client: Client
) -> None:
    assert "approval" in await seeded.get("/waiting")
    page = await seeded.get("/answer?id=waits&step=approval")
    for name in ("f.approved", "f.by", "f.limit", "f.how", "f.note"):
        assert f'name="{name}"' in page
    answer = {"act": "answer", "id": "waits", "step": "approval"}
    fields = {"f.approved": "true", "f.by": "Ann", "f.limit": "x", "f.how": '"quick"'}
    refused = await seeded.act(400, **answer, **fields)
    assert "limit" in refused
    fields["f.limit"] = "7"
    asked = await seeded.http.post("/act", data={"token": await seeded.token(), **answer, **fields})
    assert "&#34;limit&#34;:7" in asked.text
    assert 'name="sure"' in asked.text
    assert "answered approval of waits" in await seeded.act(**answer, **fields)
    async with open_worker(backend, shop.WORKFLOWS):
        assert await client.get("waits", shop.order).result(timeout=60) == "approved by Ann"
    assert "Nothing waits" in await seeded.get("/waiting")
    (record,) = (await operator.audit(instance_id="waits")).records
    assert (record.who, record.what, record.detail) == ("local", "signal", "approval")


async def test_actions_ask_once_and_leave_a_row_that_outlives_the_instance(
    seeded: Visitor, operator: Operator
) -> None:
    form = {"act": "instance", "id": "waits", "what": "cancel"}
    asked = await seeded.http.post("/act", data={"token": await seeded.token(), **form})
    assert "Nothing takes a cancel back" in asked.text
    assert (await operator.show("waits")).summary.status != "cancelled"
    assert "cancelled" in await seeded.act(**form)
    assert (await operator.show("waits")).summary.status == "cancelled"
    assert "pending again" in await seeded.act(act="instance", id="waits", what="rerun")
    assert "waits-2 is pending" in await seeded.act(
        act="fork", id="waits", new_id="waits-2", args="[7]"
    )
    await seeded.act(act="instance", id="waits", what="cancel")
    assert "removed" in await seeded.act(act="instance", id="waits", what="remove")
    done = [one.what for one in (await operator.audit(instance_id="waits")).records]
    assert done == ["prune", "cancel", "fork", "rerun", "cancel"]
    assert "waits-2" in await seeded.get("/audit?id=waits")


async def test_actions_on_those_that_were_chosen_and_on_all_that_match(
    seeded: Visitor, operator: Operator
) -> None:
    form = {"act": "bulk", "what": "cancel", "query": "workflow=order"}
    data = {"token": await seeded.token(), **form, "all": "1"}
    asked = (await seeded.http.post("/act", data=data)).text
    assert "Cancel 1 instance?" in asked
    assert "1 of 1" in await seeded.act(**form, all="1")
    assert "filter first" in await seeded.act(400, act="bulk", what="cancel", query="", all="1")
    assert "choose instances" in await seeded.act(400, act="bulk", what="cancel")
    said = await seeded.act(act="bulk", what="rerun", id="waits")
    assert "1 of 1 done" in said
    said = await seeded.act(act="bulk", what="rerun", id="waits")
    assert "0 of 1 done; 1 not, as" in said
    assert "1 removed" in await seeded.act(act="bulk", what="prune", id="done")
    assert await operator.count(id_prefix="done") == 0


async def test_all_that_match_are_those_that_an_action_is_about(
    seeded: Visitor, operator: Operator
) -> None:
    form = {"act": "bulk", "all": "1", "query": "workflow=order&status=completed&status=suspended"}
    said = await seeded.act(400, **{**form, "query": "status=completed"}, what="cancel")
    assert "cancel is for those that are pending, running, suspended" in said
    data = {"token": await seeded.token(), **form, "what": "prune"}
    assert "Prune 1 instance?" in (await seeded.http.post("/act", data=data)).text
    assert "1 removed" in await seeded.act(**form, what="prune")
    assert await operator.count(workflow="order") == 1


async def test_those_of_many_that_refused_have_no_row(
    backend: SharedBackend, operator: Operator, client: Client
) -> None:
    by_ann = Operator(backend, who="ann")
    for id in ("a", "b"):
        await client.start(shop.order, 5, id=id)
    await operator.cancel("a")
    assert await by_ann.rerun_many(id_prefix="a") == 1
    await operator.cancel("a")
    assert await by_ann.cancel_many(workflow="order") == 1
    done = [(one.what, one.instance_id) for one in (await operator.audit()).records]
    assert done == [("cancel", "b"), ("rerun", "a")]


async def test_a_line_that_somebody_has_typed_ends_as_it_should(
    seeded: Visitor, backend: SharedBackend, client: Client
) -> None:
    @workflow
    async def notes(sdk: RuntaraSdk) -> str:
        asked = await sdk.wait_for_signal("asked")
        return asked.decode() + (await sdk.receive("told")).decode()

    async with open_worker(backend, [notes]):
        instance = await client.start(notes, id="notes")
        for name, kind in (("asked", "signal"), ("told", "message")):
            await seeded.act(act="send", id="notes", name=name, kind=kind, payload="a\r\nb")
        assert await instance.result(timeout=60) == "a\nba\nb"


async def test_more_events_than_a_page_has(visitor: Visitor, backend: SharedBackend) -> None:
    async with open_runtara(backend, instance_id="one", tenant_id="t") as sdk:
        for number in range(250):
            await sdk.custom_event(f"event-{number:03}")
    page = await visitor.get("/instance?id=one")
    assert "event-150" in page
    assert "event-249" not in page
    (link,) = re.findall(r'href="([^"]*events=[^"]*)"', page)
    page = await visitor.get(link.replace("&amp;", "&"))
    assert "event-249" in page
    assert "first events" in page


async def test_the_attempt_of_a_run(
    visitor: Visitor, backend: SharedBackend, client: Client, operator: Operator
) -> None:
    @workflow(max_attempts=3, retry_delay=3600)
    async def flaky(sdk: RuntaraSdk) -> None:
        raise OSError("no route")

    async with open_worker(backend, [flaky]):
        await client.start(flaky, id="one")
        with trio.fail_after(30):
            while "attempt 2" not in await visitor.get("/"):
                await trio.sleep(0.01)
    assert "timed, attempt 2" in await visitor.get("/instance?id=one")


async def test_queues_and_schedules_are_changed(
    visitor: Visitor, operator: Operator, client: Client
) -> None:
    await client.start(shop.order, 1, id="done", queue="slow")
    await operator.set_queue(Queue("slow", limit=3))
    page = await visitor.get("/queues")
    assert "slow" in page
    limits = {"act": "limits", "name": "slow", "limit": "5", "rate_count": "", "rate_per": ""}
    assert "stored" in await visitor.act(**limits)
    assert "give both" in await visitor.act(400, **{**limits, "rate_count": "5"})
    await visitor.act(act="queue", name="slow", what="pause")
    (queue,) = [one for one in await operator.list_queues() if one.queue.name == "slow"]
    assert (queue.queue.limit, queue.paused) == (5, True)
    await operator.set_schedule(
        Schedule("nightly", shop.packing, args=(0.0,), cron="0 3 * * *", tenant_id="shop")
    )
    assert "0 3 * * *" in await visitor.get("/schedules")
    assert "started" in await visitor.act(act="schedule", name="nightly", what="trigger")
    await visitor.act(act="schedule", name="nightly", what="pause")
    said = await visitor.act(
        act="backfill", name="nightly", begin="2026-01-01T00:00", end="2026-01-03T12:00"
    )
    assert "3 slots" in said
    await visitor.act(act="schedule", name="nightly", what="remove")
    assert await operator.list_schedules() == ()
    whats = {one.what for one in (await operator.audit()).records}
    assert {"pause queue", "set queue", "pause schedule", "remove schedule", "start"} <= whats


async def test_comparing_two(seeded: Visitor, client: Client, backend: SharedBackend) -> None:
    assert "They part at" in await seeded.get("/compare?a=done&b=waits")
    assert "did the same" in await seeded.get("/compare?a=done&b=done")


async def test_who_lives(visitor: Visitor, backend: SharedBackend) -> None:
    async with open_worker(backend, shop.WORKFLOWS, name="till-1"):
        page = await visitor.get("/workers")
    assert "till-1" in page
    assert "packing" in page
