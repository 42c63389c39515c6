"""TLS by two files, a certificate (with its chain) and its key. What is wrong with them is told at the start."""

import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from flyte_manager.domain.errors import Unready
from flyte_manager.rpc.first_bytes import ALPN
from flyte_manager.rpc.server import Identity

CERTIFICATE, KEY = "server.tls.certificate", "server.tls.key"


class HalfTls(Unready):
    """{given} is set and {missing} is not: TLS needs both, a certificate file and the file of its key."""


class UnreadableFile(Unready):
    """{setting}: {file} can't be read: {problem}"""


class BadCertificate(Unready):
    """{setting}: {file} holds no certificate in PEM (-----BEGIN CERTIFICATE-----): {problem}"""


class BadKey(Unready):
    """{setting}: {file} holds no private key in PEM (-----BEGIN PRIVATE KEY-----): {problem}"""


class LockedKey(Unready):
    """{setting}: the key in {file} is encrypted; write it without a password: openssl pkey -in {file} -out NEW"""


class OtherKey(Unready):
    """the key in {key} (server.tls.key) is not that of the first certificate in {certificate} (server.tls.certificate):
    give the two files that belong together; the server's own certificate comes before those of its issuers."""


def load_identity(certificate: str, key: str) -> Identity | None:
    """None when neither file is set. Raises a Refusal that says which file is wrong and how."""
    if not certificate and not key:
        return None
    if not certificate or not key:
        given, missing = (CERTIFICATE, KEY) if certificate else (KEY, CERTIFICATE)
        raise HalfTls(given=given, missing=missing)
    own = _certificate(certificate)
    if _public(_key(key)) != own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise OtherKey(key=key, certificate=certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:  # such as a key that is too small for the system's policy
        raise BadCertificate(setting=CERTIFICATE, file=certificate, problem=str(error)) from None
    return Identity(context, _names(own), own.not_valid_after_utc, authority=_is_authority(own))


def _certificate(file: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(_read(file, CERTIFICATE))[0]
    except ValueError as error:
        problem = str(error).partition(". See ")[0]
        raise BadCertificate(setting=CERTIFICATE, file=file, problem=problem) from None


def _key(file: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(_read(file, KEY), password=None)
    except TypeError:
        raise LockedKey(setting=KEY, file=file) from None
    except ValueError as error:
        raise BadKey(setting=KEY, file=file, problem=str(error.args[0])) from None


def _public(key: PrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read(file: str, setting: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UnreadableFile(setting=setting, file=file, problem=error.strerror or str(error)) from None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [
        address
        for address in found.get_values_for_type(x509.IPAddress)
        if isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    ]
    return (*found.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))
