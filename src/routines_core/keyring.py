"""Encryption of secrets: AES-256-GCM with versioned keys.

The secret's context is associated data, so a ciphertext can be decrypted only in the context it was sealed for.
Layout: version byte, length of the key id, key id, 12-byte nonce, ciphertext with its tag.
"""

import base64
import binascii
import json
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from routines_core.errors import ConfigurationError, SecretError
from routines_core.settings import Settings

VERSION = 1
"""The first byte of every ciphertext."""
KEPT_KEY_FILE = "encryption.key"
"""File in the data directory in which `routines up` keeps the key that it generated."""
_OPEN_TO_OTHERS = stat.S_IRWXO | stat.S_IWGRP
_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_LONGEST_KEY_ID = 64


@dataclass(frozen=True)
class SecretContext:
    """The context a secret belongs to, authenticated together with its ciphertext.

    Code that opens a secret builds the context from the row that refers to it, never from the secret's own row. A
    reference that was changed to point to another tenant's secret therefore opens nothing.

    Attributes:
        collection_id: The tenant; 0 for secrets of the service itself.
        kind: secret_param, webhook_secret, environment or pepper.
        field: Its name among the secrets of its kind; empty if the owner has only one.
        owner: Its owner, see `owner_of_routine` and `owner_of_run`; empty for the collection.
        secret_id: Id of the secret's row.
    """

    collection_id: int
    kind: str
    field: str
    owner: str
    secret_id: UUID

    def associated_data(self, header: bytes) -> bytes:
        """Return the associated data of a ciphertext with this header."""
        context = [self.collection_id, self.kind, self.field, self.owner, str(self.secret_id)]
        return header + json.dumps(context).encode()


def owner_of_routine(routine_id: int) -> str:
    """Return the owner of the secrets saved with a routine."""
    return f"routine:{routine_id}"


def owner_of_run(trajectory_id: int, triggered_by_routine_id: int | None) -> str:
    """Return the owner of a run's secrets: the routine that triggered it (even if deleted since), or the run itself."""
    return f"run:{trajectory_id}" if triggered_by_routine_id is None else owner_of_routine(triggered_by_routine_id)


def owner_of_rule(rule_id: int) -> str:
    """Return the owner of the secret that signs the notices of an alert rule."""
    return f"rule:{rule_id}"


class KeyProvider(Protocol):
    """A source of encryption keys, asked once when a program starts.

    To use keys wrapped by a KMS, write a provider that stores the wrapped keys and unwraps them in `keys`.
    """

    def keys(self) -> Mapping[str, bytes]:
        """Return the 32-byte keys by id, beginning with the one that encrypts.

        Raises:
            ConfigurationError: The keys are not available; the message says why and contains no key.
        """
        ...


@dataclass(frozen=True)
class LocalKeys:
    """Keys in the form of `ROUTINES_ENCRYPTION_KEYS`: `id:base64`, separated by commas or line breaks.

    Attributes:
        text: The keys.
        source: The setting or file they come from, for error messages.
    """

    text: str
    source: str = "ROUTINES_ENCRYPTION_KEYS"

    def keys(self) -> Mapping[str, bytes]:
        """Return the keys in the order of the text.

        Raises:
            ConfigurationError: There are no keys, one is malformed or not 32 bytes long, or an id appears twice.
        """
        entries = [self._entry(part.strip()) for part in self.text.replace("\n", ",").split(",") if part.strip()]
        keys = dict(entries)
        if not entries or len(keys) < len(entries):
            raise ConfigurationError(f"{self.source}: must contain at least one key, and no key id twice.")
        return keys

    def _entry(self, entry: str) -> tuple[str, bytes]:
        key_id, _, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        # Do not show an entry without a colon: it may be the key itself.
        if not encoded or not key_id.isascii() or not 0 < len(key_id) <= _LONGEST_KEY_ID or len(key) != _KEY_BYTES:
            named = repr(key_id[:_LONGEST_KEY_ID]) if encoded else "without an id"
            raise ConfigurationError(
                f"{self.source}: the key {named} must have the form `id:base64`, with exactly 32 bytes in base64."
            )
        return key_id, key


class Keyring:
    """Encryption keys by id: the first one encrypts, all of them decrypt."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.first_key_id = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Build a keyring from text in the form of `ROUTINES_ENCRYPTION_KEYS`.

        Raises:
            ConfigurationError: The text is malformed, or a key is not 32 bytes long.
        """
        return cls(LocalKeys(text).keys())

    @property
    def key_ids(self) -> list[str]:
        """The ids of all keys, in order."""
        return list(self._ciphers)

    def seal(self, plaintext: str, context: SecretContext) -> bytes:
        """Encrypt `plaintext` with the first key, bound to its context."""
        key_id = self.first_key_id.encode()
        header = bytes([VERSION, len(key_id)]) + key_id
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.first_key_id].encrypt(nonce, plaintext.encode(), context.associated_data(header))
        return header + nonce + sealed

    def open(self, ciphertext: bytes, context: SecretContext) -> str:
        """Decrypt a ciphertext that `seal` made for the same context.

        Raises:
            SecretError: Its key is not in the keyring, or it is damaged or belongs to another context.
        """
        header, nonce, sealed = _split(ciphertext)
        key_id = header[2:].decode("ascii", "replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretError(f"Secret {context.secret_id} needs encryption key {key_id!a}, which is not configured.")
        try:
            return cipher.decrypt(nonce, sealed, context.associated_data(header)).decode()
        except InvalidTag:
            raise SecretError(
                f"Secret {context.secret_id} is not opened by encryption key {key_id!a}: it was stored with another "
                "key of this id, or is damaged or belongs to something else."
            ) from None


def load_keyring(settings: Settings) -> Keyring:
    """Load the keyring from the setting, its file, or the key file of `routines up`, in this order.

    To use another key provider, construct it here.

    Raises:
        ConfigurationError: The keys are missing or malformed, or the file cannot be read, or others can read it.
    """
    return Keyring(_provider(settings).keys())


def _provider(settings: Settings) -> KeyProvider:
    if settings.encryption_keys and settings.encryption_keys_file:
        raise ConfigurationError("ROUTINES_ENCRYPTION_KEYS and ROUTINES_ENCRYPTION_KEYS_FILE are both set: set one.")
    if settings.encryption_keys:
        return LocalKeys(settings.encryption_keys)
    path = key_file_of(settings)
    if path is not None:
        return _keys_of_file(path)
    raise ConfigurationError(
        "Neither ROUTINES_ENCRYPTION_KEYS nor ROUTINES_ENCRYPTION_KEYS_FILE is set. Generate a key with: "
        "python3 -c 'import base64, os; print(\"k1:\" + base64.b64encode(os.urandom(32)).decode())'"
    )


def key_file_of(settings: Settings) -> Path | None:
    """Return the file from which the keys are read, if they are not in ROUTINES_ENCRYPTION_KEYS."""
    kept = settings.data_dir / KEPT_KEY_FILE
    if settings.encryption_keys_file or settings.encryption_keys:
        return settings.encryption_keys_file
    return kept if settings.has_data_dir and kept.exists() else None


def _keys_of_file(path: Path) -> LocalKeys:
    try:
        with path.open(encoding="ascii") as file:
            _refuse_open_file(path, stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            return LocalKeys(file.read(), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Cannot read the encryption keys in {path} ({type(error).__name__}).") from None


def _refuse_open_file(path: Path, mode: int) -> None:
    """Refuse a file that other users may read or change; its group may read it, as mounted secrets need."""
    if os.name == "posix" and mode & _OPEN_TO_OTHERS:
        raise ConfigurationError(
            f"The encryption keys in {path} can be read or changed by other users of this machine (mode {mode:04o}): "
            f"run chmod 0400 {shlex.quote(str(path))}. If they may have been read, rotate them."
        )


def key_id_of(ciphertext: bytes) -> str:
    """Return the id of the key that a ciphertext names, or `?` if it is too damaged."""
    try:
        return _split(ciphertext)[0][2:].decode("ascii", "replace")
    except SecretError:
        return "?"


def generate_key(key_id: str = "k1") -> str:
    """Generate a new entry for `ROUTINES_ENCRYPTION_KEYS`."""
    return f"{key_id}:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}"


def _split(ciphertext: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a ciphertext into header, nonce, and encrypted content with its tag."""
    header = 2 + (ciphertext[1] if len(ciphertext) > 1 else 0)
    if len(ciphertext) < header + _NONCE_BYTES + _TAG_BYTES or ciphertext[0] != VERSION:
        raise SecretError("A stored secret is damaged: it is too short or has an unknown version.")
    nonce_end = header + _NONCE_BYTES
    return ciphertext[:header], ciphertext[header:nonce_end], ciphertext[nonce_end:]
