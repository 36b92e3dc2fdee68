"""TLS with Temporal: the server's certificate is checked, and the client's own is shown."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from temporalio.client import Client

from routines_core.errors import ConfigurationError
from routines_engine.temporal.connection import TemporalError, connect, probe
from support.temporal_server import TemporalServer
from support.temporal_working import settings_of


def signed(name: str, key: ec.EllipticCurvePrivateKey, by: str, signer: ec.EllipticCurvePrivateKey) -> bytes:
    """PEM of a certificate; the SDK takes none that is the server's and its own authority's."""
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=name == by, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)


def certificates(directory: Path) -> tuple[Path, Path, Path]:
    """The files of an authority, of a certificate of localhost that it signed, and of that one's key."""
    authority, cert, key = (directory / f"{name}.pem" for name in ("authority", "localhost", "key"))
    signer, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority.write_bytes(signed("tests", signer, "tests", signer))
    cert.write_bytes(signed("localhost", own, "tests", signer))
    key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return authority, cert, key


@asynccontextmanager
async def tls_before(address: str, context: ssl.SSLContext) -> AsyncGenerator[str]:
    """The address of a TLS server on loopback that passes everything on to this address."""
    host, port = address.split(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))
        except OSError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_server_is_asked_by_tls_with_the_clients_certificate(
    temporal: Client, temporal_server: TemporalServer, tmp_path: Path
) -> None:
    authority, cert, key = certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    files = {"temporal_ca_file": authority, "temporal_cert_file": cert, "temporal_key_file": key}
    async with tls_before(temporal_server.address, context) as address:
        client = await connect(settings_of(temporal, temporal_address=address, **files))
        await probe(client)
        for wrong in (
            {"temporal_tls": True},  # an authority that nobody knows
            {"temporal_ca_file": authority},  # no certificate of its own
            {},  # no TLS
        ):
            with pytest.raises(TemporalError, match="cannot be reached at localhost"):
                await connect(settings_of(temporal, temporal_address=address, **wrong))


async def test_files_for_tls_that_are_missing_or_alone_are_named(temporal: Client, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"The file .*/none\.pem for TLS with Temporal cannot be read"):
        await connect(settings_of(temporal, temporal_ca_file=tmp_path / "none.pem"))
    with pytest.raises(ConfigurationError, match="ROUTINES_TEMPORAL_KEY_FILE belong together"):
        await connect(settings_of(temporal, temporal_cert_file=tmp_path / "none.pem"))
