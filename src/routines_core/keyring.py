"""AES-256-GCM with versioned keys.

A ciphertext opens only where it was sealed: its context is associated data.
Layout: version byte, length of the key id, key id, 12-byte nonce, ciphertext with its tag.
"""

import base64
import binascii
import json
import os
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
"""Where `routines up` keeps the key that it made, in its data directory."""
_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_LONGEST_KEY_ID = 64


@dataclass(frozen=True)
class SecretContext:
    """Where a secret belongs: what is authenticated beside it.

    Whoever opens one builds its context from what refers to it, never from the secret's own row: so a reference that
    was bent to another's secret opens nothing.

    Attributes:
        collection_id: The tenant; 0 for what belongs to the service itself.
        kind: secret_param, webhook_secret, environment or pepper.
        field: Its name among those of its kind; empty: there is but one.
        owner: Of what: see `owner_of_routine` and `owner_of_run`; empty: of the collection.
        secret_id: Its row.
    """

    collection_id: int
    kind: str
    field: str
    owner: str
    secret_id: UUID

    def associated_data(self, header: bytes) -> bytes:
        """The bytes that a ciphertext with this header is bound to."""
        context = [self.collection_id, self.kind, self.field, self.owner, str(self.secret_id)]
        return header + json.dumps(context).encode()


def owner_of_routine(routine_id: int) -> str:
    """The owner of what was saved with a routine."""
    return f"routine:{routine_id}"


def owner_of_run(trajectory_id: int, triggered_by_routine_id: int | None) -> str:
    """The owner of a run's secrets: the routine that caused it, which may be gone by now, or else the run itself."""
    return f"run:{trajectory_id}" if triggered_by_routine_id is None else owner_of_routine(triggered_by_routine_id)


class KeyProvider(Protocol):
    """Where the keys come from: asked once, when a program starts.

    For keys that a KMS has wrapped: hold the wrapped ones, and unwrap them here.
    """

    def keys(self) -> Mapping[str, bytes]:
        """Keys of 32 bytes by id, the one that encrypts first.

        Raises:
            ConfigurationError: They cannot be had; the message says why and holds no key.
        """
        ...


@dataclass(frozen=True)
class LocalKeys:
    """Keys in the form of `ROUTINES_ENCRYPTION_KEYS`: `id:base64`, several with commas or line ends between.

    Attributes:
        text: The keys.
        source: The setting that they come from, for errors.
    """

    text: str
    source: str = "ROUTINES_ENCRYPTION_KEYS"

    def keys(self) -> Mapping[str, bytes]:
        """The keys in the order in which they stand there.

        Raises:
            ConfigurationError: None is there, one is malformed or has not 32 bytes, or an id comes twice.
        """
        entries = [self._entry(part.strip()) for part in self.text.replace("\n", ",").split(",") if part.strip()]
        keys = dict(entries)
        if not entries or len(keys) < len(entries):
            raise ConfigurationError(f"{self.source}: needs at least one key, and each key id once.")
        return keys

    def _entry(self, entry: str) -> tuple[str, bytes]:
        key_id, _, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        # An entry without a colon is shown by no error: it may be the key itself.
        if not encoded or not key_id.isascii() or not 0 < len(key_id) <= _LONGEST_KEY_ID or len(key) != _KEY_BYTES:
            named = repr(key_id[:_LONGEST_KEY_ID]) if encoded else "that has no id"
            raise ConfigurationError(
                f"{self.source}: key {named} must read `id:base64` with exactly 32 bytes in base64."
            )
        return key_id, key


class Keyring:
    """Keys by id; the first one encrypts, all of them decrypt."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.first_key_id = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """The keyring of this text in the form of `ROUTINES_ENCRYPTION_KEYS`.

        Raises:
            ConfigurationError: It is malformed, or a key has not 32 bytes.
        """
        return cls(LocalKeys(text).keys())

    @property
    def key_ids(self) -> list[str]:
        """The ids of all keys, the first first."""
        return list(self._ciphers)

    def seal(self, plaintext: str, context: SecretContext) -> bytes:
        """The ciphertext of `plaintext`, under the first key, bound to its context."""
        key_id = self.first_key_id.encode()
        header = bytes([VERSION, len(key_id)]) + key_id
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.first_key_id].encrypt(nonce, plaintext.encode(), context.associated_data(header))
        return header + nonce + sealed

    def open(self, ciphertext: bytes, context: SecretContext) -> str:
        """The plaintext of what `seal` made for this very context.

        Raises:
            SecretError: Its key is not in the keyring, it is damaged, or it belongs somewhere else.
        """
        header, nonce, sealed = _split(ciphertext)
        key_id = header[2:].decode("ascii", "replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretError(f"Secret {context.secret_id} needs encryption key {key_id!a}, which is not configured.")
        try:
            return cipher.decrypt(nonce, sealed, context.associated_data(header)).decode()
        except InvalidTag:
            raise SecretError(f"Secret {context.secret_id} is damaged or was moved from where it belongs.") from None


def load_keyring(settings: Settings) -> Keyring:
    """The keyring of this process: of the setting, else of its file, else the one that `routines up` keeps.

    Another provider of keys than the local one is put in here.

    Raises:
        ConfigurationError: It is missing or malformed, or the file cannot be read.
    """
    return Keyring(_provider(settings).keys())


def _provider(settings: Settings) -> KeyProvider:
    if settings.encryption_keys and settings.encryption_keys_file:
        raise ConfigurationError("ROUTINES_ENCRYPTION_KEYS and ROUTINES_ENCRYPTION_KEYS_FILE are both set: set one.")
    if settings.encryption_keys:
        return LocalKeys(settings.encryption_keys)
    path = settings.encryption_keys_file or settings.data_dir / KEPT_KEY_FILE
    if settings.encryption_keys_file or path.exists():
        return _keys_of_file(path)
    raise ConfigurationError(
        "ROUTINES_ENCRYPTION_KEYS is not set, nor ROUTINES_ENCRYPTION_KEYS_FILE. Make a key with: "
        "python3 -c 'import base64, os; print(\"k1:\" + base64.b64encode(os.urandom(32)).decode())'"
    )


def _keys_of_file(path: Path) -> LocalKeys:
    try:
        return LocalKeys(path.read_text("ascii"), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The encryption keys in {path} cannot be read ({type(error).__name__}).") from None


def key_id_of(ciphertext: bytes) -> str:
    """The id of the key that a ciphertext says it needs; `?` where it is too damaged to say."""
    try:
        return _split(ciphertext)[0][2:].decode("ascii", "replace")
    except SecretError:
        return "?"


def generate_key(key_id: str = "k1") -> str:
    """A new entry for `ROUTINES_ENCRYPTION_KEYS`."""
    return f"{key_id}:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}"


def _split(ciphertext: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, nonce, and what is encrypted with its tag."""
    header = 2 + (ciphertext[1] if len(ciphertext) > 1 else 0)
    if len(ciphertext) < header + _NONCE_BYTES + _TAG_BYTES or ciphertext[0] != VERSION:
        raise SecretError("A stored secret is damaged: it is too short or of an unknown version.")
    nonce_end = header + _NONCE_BYTES
    return ciphertext[:header], ciphertext[header:nonce_end], ciphertext[nonce_end:]
