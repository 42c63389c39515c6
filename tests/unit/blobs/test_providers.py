"""Which store a url names, and URLs signed for Google and Azure.

These two can't be asked here: the signatures are checked by the published rules instead.
"""

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from flyte_manager.blobs.object_store import ObjectStore, Unsignable
from flyte_manager.blobs.providers import BadStorage, Options, provider
from tests.fakes.clock import NOW, FakeClock

KEYS = {"access_key_id": "AK", "secret_access_key": "secret"}
AZURE_KEY = base64.b64encode(b"k" * 64).decode()
ACCOUNT = Options(account="acc", account_key=AZURE_KEY)
MD5 = hashlib.md5(b"content").digest()


@pytest.mark.parametrize(
    ("url", "options", "root", "prefix"),
    [
        ("s3://bucket", Options(**KEYS), "s3://bucket", ""),
        ("s3://bucket/", Options(**KEYS), "s3://bucket", ""),
        ("s3://bucket/a/b/", Options(**KEYS), "s3://bucket/a/b", "a/b/"),
        ("gs://bucket/a", Options(), "gs://bucket/a", "a/"),
        ("abfss://c@acc.dfs.core.windows.net/a", Options(account_key=AZURE_KEY), "", "a/"),
        ("abfs://c@acc.dfs.core.windows.net/a", ACCOUNT, "", "a/"),
        ("az://c/a", ACCOUNT, "", "a/"),
        ("abfss://c/a", ACCOUNT, "", "a/"),
    ],
)
def test_a_url_names_a_store_and_a_prefix(url: str, options: Options, root: str, prefix: str) -> None:
    """All spellings for Azure become the one that the SDK opens without being told the account."""
    found = provider(url, options)
    assert (found.root, found.prefix) == (root or "abfss://c@acc.dfs.core.windows.net/a", prefix)


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("", Options(), "is none of s3://bucket/prefix"),
        ("/var/lib/flyte", Options(), "is none of"),
        ("https://bucket.s3.amazonaws.com", Options(), "is none of"),
        ("s3://", Options(), "must name a bucket"),
        ("s3:///prefix", Options(), "must name a bucket"),
        ("s3://user:password@bucket/x", Options(), "must name a bucket"),
        ("s3://bucket/x?versionId=1", Options(), "must name a bucket"),
        ("s3://bucket/a/../b", Options(), ".. are not allowed"),
        ("s3://bucket/a//b", Options(), "an empty part"),
        ("s3://bucket", Options(access_key_id="AK"), "both or not at all"),
        ("s3://bucket", Options(secret_access_key="s"), "both or not at all"),
        ("s3://bucket", Options(endpoint="minio:9000"), "must be http://host:port or https://host:port"),
        ("s3://bucket", Options(signed_endpoint="http://user:password@minio"), "must be http://host:port"),
        ("gs://bucket", Options(endpoint="http://localhost:1"), "no other endpoint"),
        ("gs://bucket", Options(signed_endpoint="http://localhost:1"), "no other endpoint"),
        ("gs://bucket", Options(credentials_file="/nowhere.json"), "No such file"),
        ("az://container", Options(), "abfss://container@account.dfs.core.windows.net/prefix"),
        ("abfss://c@acc.blob.core.windows.net", Options(), "is not account.dfs.core.windows.net"),
        ("abfss://c@a.b.dfs.core.windows.net", Options(), "is not account.dfs.core.windows.net"),
        ("abfss://@acc.dfs.core.windows.net", Options(), "is told by"),
        ("abfss://c@acc.dfs.core.windows.net", Options(account="other"), "names the account acc, the setting other"),
        ("az://c", Options(account="acc", account_key="not base64!"), "Invalid Access Key"),
    ],
)
def test_settings_that_name_no_store_are_refused(url: str, options: Options, says: str) -> None:
    with pytest.raises(BadStorage) as caught:
        provider(url, options)
    assert says in str(caught.value)
    assert "password" not in str(caught.value)
    assert "Debug" not in str(caught.value)


def test_who_asks_is_told_without_secrets() -> None:
    assert provider("s3://b", Options(**KEYS)).identity == "access key AK"
    assert "AWS_ variables" in provider("s3://b", Options()).identity
    assert "GOOGLE_APPLICATION_CREDENTIALS" in provider("gs://b", Options()).identity
    assert provider("az://c", ACCOUNT).identity == "the key of account acc"
    assert "workload or managed identity" in provider("az://c", Options(account="acc")).identity


@pytest.fixture
def service_account(tmp_path: Path) -> tuple[Path, rsa.RSAPublicKey]:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    file = tmp_path / "account.json"
    content = {"type": "service_account", "client_email": "flyte@p.iam.gserviceaccount.com", "private_key_id": "1"}
    file.write_text(json.dumps(content | {"private_key": pem, "token_uri": "https://oauth2.googleapis.com/token"}))
    return file, key.public_key()


async def test_google_urls_are_signed_by_the_service_account(service_account: tuple[Path, rsa.RSAPublicKey]) -> None:
    file, public = service_account
    store = ObjectStore("gs://bucket/pre", Options(credentials_file=str(file)), FakeClock())
    for method, signed in (
        ("PUT", await store.upload(store.join("a b/ü.txt"), md5=MD5, limit=0, lifetime=timedelta(minutes=1), host="")),
        ("GET", await store.download(store.join("a b/ü.txt"), lifetime=timedelta(minutes=1), host="")),
    ):
        parts = urlsplit(signed.url)
        assert (parts.scheme, parts.netloc, parts.path) == (
            "https",
            "storage.googleapis.com",
            "/bucket/pre/a%20b/%C3%BC.txt",
        )
        query = dict(parse_qsl(parts.query))
        assert query["X-Goog-Expires"] == "60"
        signature = bytes.fromhex(query.pop("X-Goog-Signature"))
        asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
        canonical = f"{method}\n{parts.path}\n{asked}\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD"
        scope = query["X-Goog-Credential"].partition("/")[2]
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest}"
        public.verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
        assert query["X-Goog-Credential"].startswith("flyte@p.iam.gserviceaccount.com/")
        expected = {"Content-MD5": base64.b64encode(MD5).decode()} if method == "PUT" else {}
        assert (signed.headers, signed.expires_at) == (expected, NOW + timedelta(minutes=1))


@pytest.mark.parametrize("signed_endpoint", ["", "https://blobs.example.com/acc"])
async def test_azure_urls_are_signed_by_the_accounts_key_and_make_block_blobs(signed_endpoint: str) -> None:
    options = Options(account_key=AZURE_KEY, signed_endpoint=signed_endpoint)
    store = ObjectStore("abfss://cont@acc.dfs.core.windows.net/pre", options, FakeClock())
    for right, signed in (
        ("w", await store.upload(store.join("a-b/c_d~.txt"), md5=MD5, limit=0, lifetime=timedelta(minutes=1), host="")),
        ("r", await store.download(store.join("a-b/c_d~.txt"), lifetime=timedelta(minutes=1), host="")),
    ):
        base = signed_endpoint or "https://acc.blob.core.windows.net"
        assert signed.url.startswith(f"{base}/cont/pre/a-b/c_d~.txt?")
        query = {name: values[0] for name, values in parse_qs(urlsplit(signed.url).query).items()}
        fields = [query["sp"], query["st"], query["se"], "/blob/acc/cont/pre/a-b/c_d~.txt", "", "", "", query["sv"]]
        text = "\n".join([*fields, query["sr"], "", "", "", "", "", "", ""])
        expected = hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), "sha256")
        assert base64.b64decode(query["sig"]) == expected
        assert (query["sp"], query["sr"]) == (right, "b")
        headers = {"x-ms-blob-type": "BlockBlob", "Content-MD5": base64.b64encode(MD5).decode()}
        assert signed.headers == (headers if right == "w" else {})


@pytest.mark.parametrize("name", ["a b", "ü", "a%b", "a+b"])
async def test_azure_urls_that_obstore_would_sign_wrongly_are_refused(name: str) -> None:
    store = ObjectStore("az://c", ACCOUNT, FakeClock())
    with pytest.raises(Unsignable, match="rename the file"):
        await store.upload(store.join(name), md5=MD5, limit=0, lifetime=None, host="")
    with pytest.raises(Unsignable, match="rename the file"):
        await store.download(store.join(name), lifetime=None, host="")
