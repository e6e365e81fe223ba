"""Certificates of one's own, in files; and what goes without trustme."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import START_METHODS, send, subjects
from tls_client import MODES, assert_serves, secured

from lazr_smtptest import QueueController
from lazr_smtptest.tls import TLS

trustme = pytest.importorskip("trustme", reason="trustme is an extra")

GARBAGE = b"-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n"


class Files:
    """A certificate for localhost, in files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        leaf = self.authority.issue_cert("localhost")
        self.ca = folder / "my-ca.pem"
        self.cert = folder / "my-cert.pem"
        self.key = folder / "my-key.pem"
        self.both = folder / "my-both.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(self.key)
        leaf.private_key_and_cert_chain_pem.write_to_path(self.both)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("as_path", [str, Path])
def test_own_files(files, mode, as_path):
    tls = TLS(
        mode, certfile=as_path(files.cert), keyfile=as_path(files.key), ca_file=as_path(files.ca)
    )
    with QueueController(tls=tls) as controller:
        assert controller.ca_file == str(files.ca)
        assert_serves(controller)
        with secured(controller, ssl.create_default_context(cafile=files.ca)) as client:
            send(client, "hello")
        assert subjects(controller) == ["hello"]


def test_one_own_file_for_both(files):
    tls = TLS("implicit", certfile=files.both, ca_file=files.ca)
    with QueueController(tls=tls) as controller:
        assert_serves(controller)


def test_an_own_certificate_is_trusted_itself(files):
    tls = TLS(certfile=files.cert, keyfile=files.key)
    with QueueController(tls=tls) as controller:
        assert controller.ca_file == str(files.cert)
        assert_serves(controller)
        with pytest.raises(ssl.SSLCertVerificationError):
            with secured(controller, ssl.create_default_context()):
                pass


@pytest.mark.parametrize("start_method", START_METHODS)
def test_own_files_with_every_start_method(files, start_method):
    tls = TLS(certfile=files.both, ca_file=files.ca)
    with QueueController(tls=tls, start_method=start_method) as controller:
        assert_serves(controller)


def start_fails(tls: TLS, kind: type[OSError], name: object) -> None:
    controller = QueueController(tls=tls)
    with pytest.raises(kind) as caught:
        controller.start()
    assert Path(str(name)).name in str(caught.value)
    assert not controller.is_running
    assert controller.pid is None
    controller.stop()


@pytest.mark.parametrize("missing", ["cert", "key", "both"])
def test_a_file_that_is_missing(files, missing):
    path = getattr(files, missing)
    path.unlink()
    tls = (
        TLS(certfile=files.both)
        if missing == "both"
        else TLS(certfile=files.cert, keyfile=files.key)
    )
    start_fails(tls, FileNotFoundError, path)


def test_a_key_of_another_certificate(files):
    files.authority.issue_cert("localhost").private_key_pem.write_to_path(files.key)
    start_fails(TLS(certfile=files.cert, keyfile=files.key), ssl.SSLError, files.key)


def test_a_certificate_without_its_key(files):
    start_fails(TLS(certfile=files.cert), ssl.SSLError, files.cert)


@pytest.mark.parametrize("content", [b"", b"\0\1\2", GARBAGE], ids=["empty", "binary", "PEM"])
@pytest.mark.parametrize("which", ["cert", "key"])
def test_garbage(files, which, content):
    path = getattr(files, which)
    path.write_bytes(content)
    start_fails(TLS(certfile=files.cert, keyfile=files.key), ssl.SSLError, path)


def test_a_directory(files, tmp_path):
    start_fails(TLS(certfile=tmp_path), OSError, tmp_path)


@pytest.mark.parametrize("content", [None, b"", GARBAGE], ids=["missing", "empty", "garbage"])
def test_a_ca_file_that_is_not_right(files, content):
    if content is None:
        files.ca.unlink()
    else:
        files.ca.write_bytes(content)
    controller = QueueController(tls=TLS(certfile=files.both, ca_file=files.ca))
    with pytest.raises(OSError, match="my-ca.pem"):
        controller.client_context()


PASSWORD = "open sesame: żółw"


@pytest.fixture
def encrypted(files) -> Files:
    """The same, and the key has a passphrase."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )
    files.key.write_bytes(pem)
    files.both.write_bytes(pem + files.cert.read_bytes())
    return files


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("password", [PASSWORD, PASSWORD.encode()], ids=["str", "bytes"])
def test_a_key_with_a_passphrase(encrypted, start_method, password):
    for own in (
        {"certfile": encrypted.cert, "keyfile": encrypted.key},
        {"certfile": encrypted.both},
    ):
        tls = TLS(**own, password=password, ca_file=encrypted.ca)
        with QueueController(tls=tls, start_method=start_method) as controller:
            assert_serves(controller)


@pytest.mark.parametrize("password", ["open barley", "", None])
def test_a_wrong_passphrase(encrypted, password):
    tls = TLS(certfile=encrypted.cert, keyfile=encrypted.key, password=password)
    start_fails(tls, ssl.SSLError, encrypted.key)
    assert PASSWORD not in repr(TLS(certfile=encrypted.both, password=PASSWORD))


def test_a_key_with_a_passphrase_is_an_error_and_no_question(encrypted):
    """OpenSSL would ask at the terminal, and wait for an answer."""
    script = """if True:
        import sys
        from lazr_smtptest import QueueController
        from lazr_smtptest.tls import TLS
        try:
            QueueController(tls=TLS(certfile=sys.argv[1], keyfile=sys.argv[2])).start()
        except OSError as error:
            print(error)
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, encrypted.cert, encrypted.key],
        stdin=subprocess.PIPE,  # nothing comes, and no end
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # without a terminal
    ) as process:
        try:
            process.wait(10)
            said = process.stdout.read().decode()
        finally:
            process.kill()
    assert "my-key.pem" in said
    assert "pass phrase" not in said


NO_TRUSTME = """if True:
    import sys
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "trustme":
                raise ModuleNotFoundError("blocked", name=name)
    sys.meta_path.insert(0, Blocker())
    from lazr_smtptest import Controller, QueueController, Server
    from lazr_smtptest.tls import TLS
"""


def without_trustme(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_TRUSTME + script, *map(str, arguments)],
        capture_output=True,
        timeout=15,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("call", ["start()", "client_context()", "ca_file"])
def test_without_trustme_it_says_what_to_install(call):
    said = without_trustme(f"""
    controller = QueueController(tls="starttls")
    try:
        controller.{call}
    except ImportError as error:
        print(error.name, error)
    assert not controller.is_running
    """)
    assert said.startswith("trustme ")
    assert "pip install 'lazr-smtptest[tls]'" in said
    assert "certfile" in said


def test_without_trustme_own_files_do(files):
    said = without_trustme(
        """
    import smtplib
    with QueueController(tls=TLS(certfile=sys.argv[1], ca_file=sys.argv[2])) as controller:
        with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
            client.starttls(context=controller.client_context())
            client.sendmail("kim@example.com", ["lee@example.com"], "Subject: hello\\n\\n")
        print(controller.queue.get_nowait().envelope.tls)
    """,
        files.both,
        files.ca,
    )
    assert said == "TLSv1.3\n"


def test_without_trustme_own_files_do_for_clients_too(files):
    said = without_trustme(
        """
    import smtplib
    tls = TLS(certfile=sys.argv[1], ca_file=sys.argv[2], client_cert="required",
              client_ca_file=sys.argv[2])
    with QueueController(tls=tls) as controller:
        context = controller.client_context()
        context.load_cert_chain(sys.argv[1])
        with smtplib.SMTP(controller.host, controller.port, timeout=10) as client:
            client.starttls(context=context)
            client.sendmail("kim@example.com", ["lee@example.com"], "Subject: hello\\n\\n")
        print(controller.queue.get_nowait().envelope.client_cert_subject is not None)
    """,
        files.both,
        files.ca,
    )
    assert said == "True\n"


def test_without_trustme_no_certificate_of_a_client_is_made(files):
    said = without_trustme(
        """
    controller = QueueController(tls=TLS(certfile=sys.argv[1], client_cert="optional"))
    try:
        controller.start()
    except ImportError as error:
        print(error)
    """,
        files.both,
    )
    assert "with client_cert a client_ca_file" in said
