"""Secrets, encrypted row by row with AES-256-GCM.

    sealed = nonce (12 bytes) + ciphertext + tag; associated data = project, domain and name

So a row that was altered, or moved to another name, can't be opened. Values leave only by `give`, for the task that
declares them.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flyte_manager.domain.catalog import SealedSecret, SecretName, secret_scopes
from flyte_manager.domain.errors import SecretExists, UnknownSecret, Unready
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import Clock
from flyte_manager.store import secrets
from flyte_manager.store.engine import Database, Transaction

_NONCE = 12


class SecretUnreadable(Unready):
    """secret {name!r} in {scope} can't be decrypted: it was encrypted with another key file, or its row was altered;
    put the old key file back, or create the secret again."""


class Vault:
    """Implements ports.SecretKeeper. `key`: 32 bytes, used for nothing else."""

    def __init__(self, database: Database, key: bytes, clock: Clock) -> None:
        self._database = database
        self._cipher = AESGCM(key)
        self._clock = clock

    async def create(self, name: SecretName, value: bytes, *, kind: int = 0) -> None:
        """Raises SecretExists."""
        now = self._clock()
        secret = SealedSecret(name, kind, created_at=now, updated_at=now, sealed=self._seal(name, value))

        def write(tx: Transaction) -> None:
            if secrets.get(tx.connection, name) is not None:
                raise SecretExists(name=name.name, scope=name.scope)
            secrets.insert(tx, secret)

        await self._database.write(write)

    async def update(self, name: SecretName, value: bytes, *, kind: int = 0) -> None:
        """Replaces value and type. Raises UnknownSecret."""
        now, sealed = self._clock(), self._seal(name, value)

        def write(tx: Transaction) -> None:
            found = _known(tx.connection, name)
            secrets.update(tx, replace(found, type=kind, sealed=sealed, updated_at=now))

        await self._database.write(write)

    async def delete(self, name: SecretName) -> None:
        """Raises UnknownSecret."""

        def write(tx: Transaction) -> None:
            if not secrets.delete(tx, name):
                raise UnknownSecret(name=name.name, scope=name.scope)

        await self._database.write(write)

    async def get(self, name: SecretName) -> SealedSecret:
        """What is known of the secret but its value. Raises UnknownSecret."""
        return await self._database.read(lambda connection: _known(connection, name))

    async def page(self, scope: SecretName, *, limit: int, offset: int) -> Sequence[SealedSecret]:
        """One row more than `limit`, by name, of all that tasks in the scope can see."""
        return await self._database.read(lambda connection: secrets.page(connection, scope, limit, offset))

    async def give(self, scope: ProjectId, key: str) -> bytes | None:
        """See ports.Secrets. Raises SecretUnreadable."""

        def query(connection: sa.Connection) -> SealedSecret | None:
            found = (secrets.get(connection, name) for name in secret_scopes(scope, key))
            return next(filter(None, found), None)

        found = await self._database.read(query)
        return None if found is None else self._open(found)

    def _seal(self, name: SecretName, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, value, _label(name))

    def _open(self, secret: SealedSecret) -> bytes:
        try:
            return self._cipher.decrypt(secret.sealed[:_NONCE], secret.sealed[_NONCE:], _label(secret.id))
        except (InvalidTag, ValueError):  # ValueError: cut below the length of a nonce or tag
            raise SecretUnreadable(name=secret.id.name, scope=secret.id.scope) from None


def _known(connection: sa.Connection, name: SecretName) -> SealedSecret:
    found = secrets.get(connection, name)
    if found is None:
        raise UnknownSecret(name=name.name, scope=name.scope)
    return found


def _label(name: SecretName) -> bytes:
    return "\0".join((name.project, name.domain, name.name)).encode()
