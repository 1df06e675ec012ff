"""The site's own certificate authority: it signs the certificates of services that are not Kubernetes'.

Its key stays on the machine that provisions, in the site's folder (0600). Source of the extensions' meaning: RFC 5280.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from configs.problems import Problem, UserError
from infra.stack.credentials import write_private

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
RENEW_DAYS = 60
"""A server's certificate with fewer days left is made anew."""
_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class ServerCertificate:
    """PEM texts of a server's certificate and of its key, which ``repr`` does not show."""

    certificate: str
    key: str = field(repr=False)


class Authority:
    """The CA in ``folder``; made at the first use, and never anew while its files are there.

    Raises:
        UserError: one of its two files is there without the other, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ca.crt"
        self._folder = folder
        key_path = folder / "ca.key"
        if self.path.exists() != key_path.exists():
            missing, there = (key_path, self.path) if self.path.exists() else (self.path, key_path)
            remedy = f"bring it back from a backup; without it, remove {there}, and every machine gets a new CA"
            raise UserError(Problem(str(missing), "is not there, but its other half is", remedy))
        if not self.path.exists():
            self._make(key_path)
        try:
            self.certificate = x509.load_pem_x509_certificate(self.path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise UserError(Problem(str(folder), f"holds no CA: {error}", "bring ca.crt and ca.key back")) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UserError(Problem(str(key_path), "is no key of an elliptic curve", "bring ca.crt and ca.key back"))
        self._key = key

    @property
    def pem(self) -> str:
        """Return the CA's certificate."""
        return self.path.read_text(encoding="utf-8")

    def server(self, name: str, hosts: Sequence[str]) -> ServerCertificate:
        """Return the certificate of a server: the one it has, or a new one where that ends soon or names others.

        Args:
            name: of its files. hosts: DNS names and addresses that it is reached by; the first is its common name.
        """
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        if not (certificate.exists() and key.exists() and self._fits(certificate.read_bytes(), hosts)):
            private = ec.generate_private_key(ec.SECP256R1())
            built = (
                _builder(hosts[0], self.certificate.subject, private.public_key(), SERVER_DAYS)
                .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
                .sign(self._key, hashes.SHA256())
            )
            write_private(key, _pem(private))
            write_private(certificate, built.public_bytes(serialization.Encoding.PEM).decode())
        return ServerCertificate(certificate.read_text(encoding="utf-8"), key.read_text(encoding="utf-8"))

    def _fits(self, pem: bytes, hosts: Sequence[str]) -> bool:
        found = x509.load_pem_x509_certificate(pem)
        try:
            found.verify_directly_issued_by(self.certificate)
        except Exception:  # the library raises a kind of its own for each reason; to us they are one
            return False
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        left = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        return list(names) == [_general_name(host) for host in hosts] and left > datetime.timedelta(days=RENEW_DAYS)

    def _make(self, key_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site CA")])
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        built = (
            _builder("site CA", name, key.public_key(), AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(key_path, _pem(key))
        write_private(self.path, built.public_bytes(serialization.Encoding.PEM).decode())


def _builder(
    common_name: str, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # A machine's clock may be behind ours when it sees this certificate for the first time.
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
