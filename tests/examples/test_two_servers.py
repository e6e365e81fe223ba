import contextlib
import smtplib

import pytest


def send_by_any(relays, recipient, content):
    """Send by the first relay that takes the message."""
    for host, port in relays:
        with contextlib.suppress(OSError):  # each SMTPException is one
            with smtplib.SMTP(host, port) as client:
                client.sendmail("app@example.com", [recipient], content)
                return
    raise ConnectionError("no relay took the message")


@pytest.fixture
def first(smtptest_factory):
    return smtptest_factory(data_size_limit=1000)


@pytest.fixture
def second(smtptest_factory):
    return smtptest_factory()


@pytest.fixture
def relays(first, second):
    return [(first.host, first.port), (second.host, second.port)]


def test_first_relay(relays, first, second):
    send_by_any(relays, "kim@example.com", "Subject: Hello\r\n\r\n")
    first.wait(rcpt="kim@example.com")
    assert second.messages == []


def test_first_relay_refuses(relays, first, second):
    send_by_any(
        relays,
        "kim@example.com",
        "Subject: Hello\r\n\r\n" + "Very long.\r\n" * 100,
    )
    second.wait(rcpt="kim@example.com")
    assert first.messages == []


def test_first_relay_is_down(relays, first, second):
    first.stop()
    send_by_any(relays, "kim@example.com", "Subject: Hello\r\n\r\n")
    second.wait(rcpt="kim@example.com")


def test_no_relay(relays, first, second):
    first.stop()
    second.stop()
    with pytest.raises(ConnectionError):
        send_by_any(relays, "kim@example.com", "Subject: Hello\r\n\r\n")
