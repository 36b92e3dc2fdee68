"""TLS with Temporal: the server's certificate is checked, and the client's is presented."""

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
from routines_core.settings import Settings
from routines_engine.temporal.connection import TemporalError, connect, probe
from support.temporal_server import TemporalServer
from support.temporal_working import settings_of


def signed(name: str, key: ec.EllipticCurvePrivateKey, by: str, signer: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a certificate as PEM. The SDK accepts no server certificate that is its own authority."""
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
    """Create an authority and a localhost certificate. Returns the files of both and of the certificate's key."""
    authority, cert, key = (directory / f"{name}.pem" for name in ("authority", "localhost", "key"))
    signer, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority.write_bytes(signed("tests", signer, "tests", signer))
    cert.write_bytes(signed("localhost", own, "tests", signer))
    key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return authority, cert, key


@asynccontextmanager
async def tls_before(address: str, context: ssl.SSLContext) -> AsyncGenerator[str]:
    """Run a TLS server on loopback that forwards to this address. Yields its own address."""
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


async def test_a_tls_server_is_asked_with_the_clients_certificate(
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
            {"temporal_tls": True},  # an unknown authority
            {"temporal_ca_file": authority},  # no client certificate
            {},  # without TLS
        ):
            with pytest.raises(TemporalError, match="cannot be reached at localhost"):
                await connect(settings_of(temporal, temporal_address=address, **wrong))


@pytest.mark.parametrize("host", ["temporal.internal", "192.0.2.7", "10.0.0.1", "[2001:db8::1]", "localhost.example"])
async def test_a_remote_server_without_tls_is_refused_before_it_is_asked(host: str) -> None:
    settings = Settings(engine="temporal", temporal_address=f"{host}:7233")
    with pytest.raises(ConfigurationError, match=r"without TLS.*ROUTINES_TEMPORAL_TLS=true"):
        await connect(settings)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "[::1]"])
async def test_loopback_needs_no_tls(host: str) -> None:
    with pytest.raises(TemporalError, match="cannot be reached"):
        await connect(Settings(engine="temporal", temporal_address=f"{host}:1"))


async def test_a_remote_server_without_tls_is_asked_if_a_setting_allows_it() -> None:
    settings = Settings(engine="temporal", temporal_address="temporal.invalid:7233", temporal_insecure=True)
    with pytest.raises(TemporalError, match="cannot be reached"):
        await connect(settings)


async def test_missing_or_incomplete_tls_files_are_named(temporal: Client, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"The TLS file .*/none\.pem for Temporal cannot be read"):
        await connect(settings_of(temporal, temporal_ca_file=tmp_path / "none.pem"))
    with pytest.raises(ConfigurationError, match="ROUTINES_TEMPORAL_KEY_FILE belong together"):
        await connect(settings_of(temporal, temporal_cert_file=tmp_path / "none.pem"))
