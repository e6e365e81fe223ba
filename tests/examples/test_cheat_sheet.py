import smtplib

import pytest

CONTENT = "Subject: Your receipt\n\n3 apples"


def send_receipt(host, port):  # stands for your program
    with smtplib.SMTP(host, port) as client:
        client.sendmail("shop@example.com", "kim@example.com", CONTENT)


def test_what_arrives(smtptest):  # a running server, without mail
    send_receipt(smtptest.host, smtptest.port)

    message = smtptest.wait(rcpt="kim@example.com", subject="receipt")
    # Decoded, as a mail program shows it.
    assert message.header("Subject") == "Your receipt"
    assert (message.text, message.html) == ("3 apples\n", "")
    assert (message.attachments, message.links()) == ([], [])
    # What SMTP said; also rcpt_tos, tls, auth_user.
    assert message.envelope.mail_from == "shop@example.com"
    # As it was sent, byte for byte.
    assert message.raw == b"Subject: Your receipt\r\n\r\n3 apples\r\n"
    # What is wrong with it, by name.
    assert message.problems[0].code == "from-missing"
    # It is an email.message.EmailMessage, too.
    assert isinstance(message["Subject"], str)

    assert smtptest.messages == []  # what is there; takes nothing
    smtptest.expect_none(rcpt="lee@example.com")  # and none comes
    assert list(smtptest) == []  # takes all
    smtptest.reset()  # forgets all, as is done before each test


def test_when_the_server_misbehaves(smtptest):
    busy = smtptest.fault("RCPT", "451 4.7.1 Try later", times=2)
    for _ in range(2):
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send_receipt(smtptest.host, smtptest.port)
    send_receipt(smtptest.host, smtptest.port)  # the third is taken
    assert busy.fired == 2
    # And what was said, line by line.
    assert smtptest.sessions()[-1].ended == "QUIT"


@pytest.mark.smtptest(tls="implicit", auth={"kim": "s3cret"})
def test_login(smtptest):  # a server with options of its own
    host, port = smtptest.host, smtptest.port
    context = smtptest.client_context()  # trusts its certificate
    with smtplib.SMTP_SSL(host, port, context=context) as client:
        client.login("kim", "s3cret")
