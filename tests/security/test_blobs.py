"""Signed URLs in the hands of somebody who wants more than they give; and paths that want out of the store."""

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest

from flyte_manager.blobs.directory import INCOMING
from flyte_manager.blobs.paths import OutsideStore
from flyte_manager.blobs.signed import Grant, Signer
from flyte_manager.domain.errors import Invalid
from tests.unit.rpc.serving import eventually, raw
from tests.unit.services.running import Manager, running

BODY = b"<h1>report</h1>"
MD5 = hashlib.md5(BODY).digest()
CANARY = b"canary: outside the store"


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    (tmp_path / "outside").write_bytes(CANARY)
    async with running(tmp_path) as started:
        yield started


def grant(manager: Manager, verb: str = "write", path: str = "uploads/x/report.html", **fields: object) -> Grant:
    made = Grant("write", manager.directory.join(path), manager.signer.expiry(None), md5=MD5)
    return replace(made, verb=verb, **fields)  # type: ignore[arg-type]


def url(manager: Manager, made: Grant) -> str:
    return manager.url + manager.signer.url(made)


def signed_by_hand(manager: Manager, verb: str, uri: str) -> str:
    """A URL for any uri at all, as if the manager had signed it."""
    return url(manager, Grant(verb, uri, manager.signer.expiry(None)))  # type: ignore[arg-type]


async def test_a_signed_put_stores_and_may_be_repeated(manager: Manager) -> None:
    made = grant(manager)
    for _ in range(2):
        answer = await manager.put(url(manager, made), BODY, content_md5=base64.b64encode(MD5).decode())
        assert answer.status_code == 200
    assert await manager.directory.read(made.uri) == BODY


async def test_a_body_in_chunks_is_stored_too(manager: Manager) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(BODY), 4):
            yield BODY[at : at + 4]

    made = grant(manager)
    async with httpx.AsyncClient() as client:
        assert (await client.put(url(manager, made), content=chunks())).status_code == 200
    assert await manager.directory.read(made.uri) == BODY


async def test_no_part_of_a_url_can_be_altered(manager: Manager) -> None:
    made = grant(manager)
    text = parse_qs(urlsplit(manager.signer.url(made)).query)["grant"][0]
    body, _, signature = text.partition(".")
    fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    altered = []
    for key, value in {
        "verb": "read",
        "uri": manager.directory.join("uploads/y"),
        "expires": fields["expires"] + 1,
        "md5": "",
        "limit": 9,
    }.items():
        changed = json.dumps(fields | {key: value}, separators=(",", ":")).encode()
        altered.append(f"{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}.{signature}")
    other_key = Signer(b"o" * 32, manager.clock).url(made).partition("=")[2]
    for forged in (*altered, f"{body}.", f"{body}.AAAA", f"{body}.{signature[:-2]}", f"{body}.{signature}A", other_key):
        answer = await manager.put(f"{manager.url}/blobs/write?grant={forged}", BODY)
        assert answer.status_code == 403, forged
        assert "signature is wrong" in answer.text
        assert answer.headers["content-type"].startswith("text/plain")
    assert not await manager.directory.exists(made.uri)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "not signed"),
        ("grant=", "not signed"),
        ("other=1", "not signed"),
        ("grant=abc", "malformed"),
        ("grant=" + "x" * 20_000 + ".y", "malformed"),
        ("grant=%FF%FE.%00", "malformed"),
        ("grant=.", "signature is wrong"),
        ("grant=e30.e30", "signature is wrong"),
    ],
)
async def test_a_url_that_is_no_grant_is_refused(manager: Manager, query: str, says: str) -> None:
    for answer in (
        await manager.put(f"{manager.url}/blobs/write?{query}", BODY),
        await manager.get(f"{manager.url}/blobs/read?{query}"),
    ):
        assert answer.status_code == 403
        assert says in answer.text


async def test_an_expired_url_is_told_apart(manager: Manager) -> None:
    made = grant(manager)
    manager.clock.advance(seconds=901)
    answer = await manager.put(url(manager, made), BODY)
    assert answer.status_code == 403
    assert "Request has expired" in answer.text
    assert not await manager.directory.exists(made.uri)


async def test_a_url_does_what_it_was_made_for_and_nothing_else(manager: Manager) -> None:
    writing, reading = grant(manager), grant(manager, "read")
    await manager.directory.write(reading.uri, BODY)
    to_write = manager.signer.url(reading).replace("/read?", "/write?")
    to_read = manager.signer.url(writing).replace("/write?", "/read?")
    assert (await manager.put(manager.url + to_write, b"other")).status_code == 403
    assert (await manager.get(manager.url + to_read)).status_code == 403
    assert (await manager.get(url(manager, writing))).status_code == 405
    for method in ("PUT", "POST", "DELETE"):
        assert (await manager.get(url(manager, reading), method)).status_code == 405
    assert await manager.directory.read(reading.uri) == BODY


async def test_content_that_is_not_the_signed_one_is_refused(manager: Manager) -> None:
    made = grant(manager)
    wrong_body = await manager.put(url(manager, made), b"other")
    assert wrong_body.status_code == 400
    assert MD5.hex() in wrong_body.text
    wrong_header = await manager.put(url(manager, made), BODY, content_md5=base64.b64encode(b"x" * 16).decode())
    no_header = await manager.put(url(manager, made), BODY, content_md5="not base64!")
    assert wrong_header.status_code == no_header.status_code == 400
    assert "Content-MD5" in wrong_header.text
    assert not await manager.directory.exists(made.uri)


async def test_more_than_the_signed_size_is_refused(manager: Manager) -> None:
    made = grant(manager, limit=len(BODY) - 1)
    assert (await manager.put(url(manager, made), BODY)).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        yield BODY

    async with httpx.AsyncClient() as client:
        assert (await client.put(url(manager, made), content=chunks())).status_code == 413
    assert not await manager.directory.exists(made.uri)


async def test_an_upload_is_never_changed_by_another(manager: Manager) -> None:
    first = grant(manager)
    await manager.put(url(manager, first), BODY)
    for other in (replace(first, md5=b""), replace(first, md5=hashlib.md5(b"other").digest())):
        answer = await manager.put(url(manager, other), b"other")
        assert answer.status_code == 409
        assert "exists already with other content" in answer.text
    assert await manager.directory.read(first.uri) == BODY


async def test_an_upload_that_breaks_off_stores_nothing(manager: Manager) -> None:
    made = grant(manager, md5=b"")
    port = urlsplit(manager.url).port or 0
    head = f"PUT {manager.signer.url(made)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(head.encode() + b"half")
    await writer.drain()
    incoming = f"{manager.directory.root}/{INCOMING}"
    await eventually(lambda: len(os.listdir(incoming)) == 1)
    writer.close()
    await eventually(lambda: not os.listdir(incoming))
    assert await reader.read() == b""
    assert not await manager.directory.exists(made.uri)


@pytest.mark.parametrize(
    "tail",
    [
        "/../outside",
        "/uploads/../../outside",
        "/./../outside",
        "//../outside",
        "/%2e%2e/outside",
        "/..%2foutside",
        "/uploads/x\0/../../outside",
        "/.incoming/x",
        "-sibling/x",
        "",
        "/",
    ],
)
async def test_even_a_signed_path_does_not_lead_out_of_the_store(manager: Manager, tail: str) -> None:
    uri = manager.directory.root + tail
    read = await manager.get(signed_by_hand(manager, "read", uri))
    write = await manager.put(signed_by_hand(manager, "write", uri), b"x")
    assert read.status_code in (400, 404)
    assert write.status_code in (200, 400)
    assert CANARY not in read.content
    assert (manager.folder / "outside").read_bytes() == CANARY
    if write.status_code == 200:  # %2e is no dot: an object of that very name
        assert await manager.directory.read(uri) == b"x"


@pytest.mark.parametrize("uri", ["/etc/passwd", "relative", "", "file:///etc/passwd", "s3://bucket/x", "~/x"])
async def test_a_foreign_uri_is_refused_even_when_signed(manager: Manager, uri: str) -> None:
    for answer in (
        await manager.get(signed_by_hand(manager, "read", uri)),
        await manager.put(signed_by_hand(manager, "write", uri), b"x"),
    ):
        assert answer.status_code == 400
        assert "outside" in answer.text


async def test_links_that_tasks_left_do_not_lead_out_of_the_store(manager: Manager) -> None:
    root = Path(manager.directory.root)
    (root / "file").symlink_to(manager.folder / "outside")
    (root / "folder").symlink_to(manager.folder)
    (root / "loop").symlink_to("loop")
    assert await manager.directory.read(manager.directory.join("loop")) is None
    assert await manager.directory.read(manager.directory.join("loop/x")) is None
    (root / "dangling").symlink_to(manager.folder / "made-by-link")
    for path in ("file", "folder/outside", "dangling", "folder/new"):
        uri = manager.directory.join(path)
        for call in (
            manager.directory.read(uri),
            manager.directory.exists(uri),
            manager.directory.write(uri, b"x"),
            manager.directory.receive(uri, nothing()),
        ):
            with pytest.raises(OutsideStore):
                await call
    assert (manager.folder / "outside").read_bytes() == CANARY
    assert not (manager.folder / "made-by-link").exists()
    assert not (manager.folder / "new").exists()


async def nothing() -> AsyncIterator[bytes]:
    yield b""


async def test_a_link_inside_the_store_may_be_followed(manager: Manager) -> None:
    await manager.directory.write(manager.directory.join("real"), b"x")
    os.symlink("real", f"{manager.directory.root}/link")
    assert await manager.directory.read(manager.directory.join("link")) == b"x"


async def test_a_report_is_shown_in_a_sandbox(manager: Manager) -> None:
    made = grant(manager, "read", "r1/a0/1/report.html")
    await manager.directory.write(made.uri, BODY)
    answer = await manager.get(url(manager, made))
    assert answer.content == BODY
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-disposition"].startswith("inline")
    head = await manager.get(url(manager, made), "HEAD")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(BODY)))


@pytest.mark.parametrize("name", ["code.tgz", "page.svg", "page.htm", "x.js", 'a";x="b.pb', "ü\u2028.xhtml"])
async def test_anything_but_a_report_is_offered_as_a_download(manager: Manager, name: str) -> None:
    made = grant(manager, "read", f"uploads/{name}")
    await manager.directory.write(made.uri, b"<script>alert(1)</script>")
    answer = await manager.get(url(manager, made))
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    assert answer.headers["content-type"] in ("application/octet-stream", "application/gzip")
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts"


async def test_what_is_gone_is_gone(manager: Manager) -> None:
    answer = await manager.get(url(manager, grant(manager, "read", "nothing/here")))
    assert answer.status_code == 404
    assert "is gone" in answer.text


async def test_a_lifetime_is_not_stretched_by_asking(manager: Manager) -> None:
    with pytest.raises(Invalid):
        manager.signer.expiry(timedelta(hours=2))


async def test_a_negative_length_does_not_confuse_anyone(manager: Manager) -> None:
    port = urlsplit(manager.url).port or 0
    made = grant(manager, md5=b"", limit=5)
    head = f"PUT {manager.signer.url(made)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\nabc"
    answer = await raw(port, head.encode())
    assert b" 400 " in answer.split(b"\r\n", 1)[0]
    assert not await manager.directory.exists(made.uri)
