"""Which object store a url names, and how to log in there.

    s3://bucket/prefix                                          S3 and whatever speaks its protocol (`endpoint`)
    gs://bucket/prefix                                          Google Cloud Storage
    abfss://container@account.dfs.core.windows.net/prefix       Azure; also abfs://, and az://container/prefix

Keys that are given count. Without them obstore looks around, in this order:
    S3     AWS_ACCESS_KEY_ID and its like, web identity (EKS IRSA), ECS and EKS Pod Identity, instance metadata;
           profiles in ~/.aws are not read
    GCS    GOOGLE_SERVICE_ACCOUNT, GOOGLE_APPLICATION_CREDENTIALS (service account or user), gcloud's own file, metadata
           server (GKE workload identity); signed URLs need iam.serviceAccounts.signBlob then
    Azure  AZURE_STORAGE_ACCOUNT_KEY, client secret, workload identity (AKS), SAS token (it can't sign URLs), managed
           identity; signed URLs need the role Storage Blob Delegator then
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from flyte_manager.blobs.paths import BadPath, checked_path
from flyte_manager.domain.errors import Unready

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config, S3Credential

CONNECT = timedelta(seconds=5)
SILENCE = timedelta(seconds=10)
"""without a byte of an answer"""
WHOLE_REQUEST = timedelta(minutes=5)
RETRIES: "RetryConfig" = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
AZURE_HOST = ".dfs.core.windows.net"
_AZURE = ("abfss", "abfs", "az")

Store = S3Store | GCSStore | AzureStore


class BadStorage(Unready):
    """the object store's settings can't be used: {problem}."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a provider may be told; empty = what the environment says."""

    endpoint: str = ""
    """S3 and Azure: http(s)://host:port of a compatible store; addressed by paths, not by names of hosts"""
    signed_endpoint: str = ""
    """S3 and Azure: the same store, as clients outside reach it; URLs are signed for it"""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    credentials_file: str = ""
    """GCS: a service account's key, JSON"""
    account: str = ""
    """Azure"""
    account_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Provider:
    """An object store that can be asked."""

    root: str
    """the uri below which everything lies, without a slash at its end, as the SDK opens it"""
    prefix: str
    """of all keys, with a slash at its end unless it is empty"""
    store: Store
    signing: Store
    """makes the URLs for clients"""
    identity: str
    """who asks, in words"""
    permissions: Mapping[str, str]
    """what the identity needs to read, write, delete, sign and list"""
    upload_headers: Mapping[str, str]
    """that a client must send with a PUT"""
    plain_names: bool = False
    """whether only keys of A-Z a-z 0-9 - . _ ~ / can be signed"""


def provider(url: str, options: Options) -> Provider:
    """What the url names; nothing is asked over the network. Raises BadStorage."""
    parts = urlsplit(url)
    makers = {"s3": _s3, "gs": _gcs} | dict.fromkeys(_AZURE, _azure)
    if parts.scheme not in makers:
        raise BadStorage(
            problem=f"{_shown(url)} is none of s3://bucket/prefix, gs://bucket/prefix and "
            f"abfss://container@account{AZURE_HOST}/prefix"
        )
    if not parts.netloc or parts.query or parts.fragment or ":" in parts.netloc:
        raise BadStorage(problem=f"{_shown(url)} must name a bucket and may name a prefix, nothing else")
    prefix = parts.path.strip("/")
    try:
        path = f"/{checked_path(prefix)}" if prefix else ""
    except BadPath as error:
        raise BadStorage(problem=str(error)) from error
    for name, given in (("endpoint", options.endpoint), ("signed endpoint", options.signed_endpoint)):
        if given and not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", given):
            raise BadStorage(problem=f"the {name} {_shown(given)} must be http://host:port or https://host:port")
    try:
        return makers[parts.scheme](parts.netloc, path, options)
    except BaseError as error:
        # Its second paragraph is for debugging.
        raise BadStorage(problem=str(error).partition("\n")[0]) from None


def _s3(bucket: str, path: str, options: Options) -> Provider:
    if bool(options.access_key_id) != bool(options.secret_access_key):
        raise BadStorage(problem="the access key id and the secret access key are given both or not at all")

    def store(endpoint: str) -> S3Store:
        config: S3Config = {"disable_bulk_delete": True}
        if options.region:
            config["region"] = options.region
        if endpoint:
            # The stronger of the two settings for it: AWS_ENDPOINT_URL_S3 in the environment doesn't count then.
            config["aws_endpoint_url_s3"] = endpoint
            config["virtual_hosted_style_request"] = False
        return S3Store(
            bucket,
            config=config,
            client_options=_client(endpoint),
            retry_config=RETRIES,
            credential_provider=_StaticKey(options) if options.access_key_id else None,
        )

    return Provider(
        root=f"s3://{bucket}{path}",
        prefix=_prefix(path),
        store=store(options.endpoint),
        signing=store(options.signed_endpoint or options.endpoint),
        identity=f"access key {options.access_key_id}"
        if options.access_key_id
        else "the identity that the environment gives (AWS_ variables, web identity, role of the pod or machine)",
        permissions={
            "read": "s3:GetObject (and s3:ListBucket: without it a missing object looks like a forbidden one)",
            "write": "s3:PutObject",
            "delete": "s3:DeleteObject",
            "sign": "credentials at all",
            "list": "s3:ListBucket",
        },
        upload_headers={},
    )


class _StaticKey:
    """Gives the key that the settings name, and never AWS_SESSION_TOKEN of the environment along with it."""

    def __init__(self, options: Options) -> None:
        self._key = options.access_key_id
        self._secret = options.secret_access_key

    def __call__(self) -> "S3Credential":
        return {"access_key_id": self._key, "secret_access_key": self._secret, "token": None, "expires_at": None}


def _gcs(bucket: str, path: str, options: Options) -> Provider:
    if options.endpoint or options.signed_endpoint:
        raise BadStorage(problem="Google Cloud Storage has no other endpoint than its own")
    config: GCSConfig = {}
    if options.credentials_file:
        config["service_account"] = options.credentials_file
    store = GCSStore(bucket, config=config, client_options=_client(""), retry_config=RETRIES)
    return Provider(
        root=f"gs://{bucket}{path}",
        prefix=_prefix(path),
        store=store,
        signing=store,
        identity=f"the service account in {options.credentials_file}"
        if options.credentials_file
        else "the identity that the environment gives (GOOGLE_APPLICATION_CREDENTIALS, gcloud, workload identity)",
        permissions={
            "read": "storage.objects.get and storage.objects.list (role Storage Object User)",
            "write": "storage.objects.create and storage.objects.delete (role Storage Object User)",
            "delete": "storage.objects.delete (role Storage Object User)",
            "list": "storage.objects.list (role Storage Object User)",
            "sign": "iam.serviceAccounts.signBlob on itself (role Service Account Token Creator)",
        },
        upload_headers={},
    )


def _azure(netloc: str, path: str, options: Options) -> Provider:
    container, at, host = netloc.partition("@")
    account = host.removesuffix(AZURE_HOST) if at else options.account
    if at and (not host.endswith(AZURE_HOST) or "." in account):
        raise BadStorage(problem=f"the host {_shown(host)} is not account{AZURE_HOST}")
    if not account or not container:
        raise BadStorage(problem=f"an Azure store is told by abfss://container@account{AZURE_HOST}/prefix")
    if options.account not in ("", account):
        raise BadStorage(problem=f"the url names the account {account}, the setting {options.account}")

    def store(endpoint: str) -> AzureStore:
        config: AzureConfig = {"account_name": account}
        if options.account_key:
            config["account_key"] = options.account_key
        if endpoint:
            config["endpoint"] = endpoint
        return AzureStore(container, config=config, client_options=_client(endpoint), retry_config=RETRIES)

    contributor = "the role Storage Blob Data Contributor"
    return Provider(
        root=f"abfss://{container}@{account}{AZURE_HOST}{path}",
        prefix=_prefix(path),
        store=store(options.endpoint),
        signing=store(options.signed_endpoint or options.endpoint),
        identity=f"the key of account {account}"
        if options.account_key
        else "the identity that the environment gives (AZURE_ variables, workload or managed identity)",
        permissions={
            "read": contributor,
            "write": contributor,
            "delete": contributor,
            "sign": "the role Storage Blob Delegator",
            "list": contributor,
        },
        upload_headers={"x-ms-blob-type": "BlockBlob"},
        # obstore signs the escaped form of a key, Azure checks the plain one.
        plain_names=True,
    )


def _client(endpoint: str) -> "ClientConfig":
    return {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": CONNECT,
        "read_timeout": SILENCE,
        "timeout": WHOLE_REQUEST,
    }


def _prefix(path: str) -> str:
    return f"{path[1:]}/" if path else ""


def _shown(text: str) -> str:
    """Without what may be a password in it."""
    return repr(re.sub(r"//[^/@]*:[^/@]*@", "//…@", text.partition("?")[0])[:200])
