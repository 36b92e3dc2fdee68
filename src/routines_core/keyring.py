"""AES-256-GCM with versioned keys.

A ciphertext opens only where it was sealed: collection, kind and id are associated data.
Layout: version byte, length of the key id, key id, 12-byte nonce, ciphertext with its tag.
"""

import base64
import binascii
import os
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from routines_core.errors import ConfigurationError, SecretError

_VERSION = 1
_KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True)
class SecretPlace:
    """Where a secret belongs: what is authenticated beside it."""

    collection_id: int
    kind: str
    secret_id: UUID

    def associated_data(self) -> bytes:
        """The bytes that a ciphertext is bound to."""
        return f"routines:{_VERSION}:{self.collection_id}:{self.kind}:{self.secret_id}".encode()


class Keyring:
    """Keys by id; the first one encrypts, all of them decrypt."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.first_key_id = next(iter(keys))

    @classmethod
    def parse(cls, text: str | None) -> "Keyring":
        """The keyring of `ROUTINES_ENCRYPTION_KEYS`: `id:base64`, several with commas between.

        Raises:
            ConfigurationError: It is missing, malformed, or a key has not 32 bytes.
        """
        if not text:
            raise ConfigurationError(
                "ROUTINES_ENCRYPTION_KEYS is not set. Make one with: "
                "python3 -c 'import base64, os; print(\"k1:\" + base64.b64encode(os.urandom(32)).decode())'"
            )
        return cls(dict(_parse_key(part.strip()) for part in text.split(",")))

    def seal(self, plaintext: str, place: SecretPlace) -> bytes:
        """The ciphertext of `plaintext`, under the first key, bound to its place."""
        key_id = self.first_key_id.encode()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self.first_key_id].encrypt(nonce, plaintext.encode(), place.associated_data())
        return bytes([_VERSION, len(key_id)]) + key_id + nonce + sealed

    def open(self, ciphertext: bytes, place: SecretPlace) -> str:
        """The plaintext of what `seal` made for this very place.

        Raises:
            SecretError: Its key is not in the keyring, it is damaged, or it belongs somewhere else.
        """
        key_id, nonce, sealed = _split(ciphertext)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretError(f"Secret {place.secret_id} needs encryption key {key_id!r}, which is not configured.")
        try:
            return cipher.decrypt(nonce, sealed, place.associated_data()).decode()
        except InvalidTag:
            raise SecretError(f"Secret {place.secret_id} is damaged or was moved from where it belongs.") from None


def generate_key(key_id: str = "k1") -> str:
    """A new entry for `ROUTINES_ENCRYPTION_KEYS`."""
    return f"{key_id}:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}"


def _parse_key(entry: str) -> tuple[str, bytes]:
    key_id, _, encoded = entry.partition(":")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if not key_id or len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"ROUTINES_ENCRYPTION_KEYS: key {key_id!r} must read `id:base64` with exactly 32 bytes in base64."
        )
    return key_id, key


def _split(ciphertext: bytes) -> tuple[str, bytes, bytes]:
    header = 2 + (ciphertext[1] if len(ciphertext) > 1 else 0)
    if len(ciphertext) < header + _NONCE_BYTES or ciphertext[0] != _VERSION:
        raise SecretError("A stored secret is damaged: it is too short or of an unknown version.")
    nonce_end = header + _NONCE_BYTES
    return (
        ciphertext[2:header].decode("ascii", "replace"),
        ciphertext[header:nonce_end],
        ciphertext[nonce_end:],
    )
