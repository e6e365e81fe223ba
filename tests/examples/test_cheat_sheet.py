import smtplib

import pytest


def send_receipt(host, port):  # stands for your program
    with smtplib.SMTP(host, port) as client:
        client.sendmail("shop@example.com", "kim@example.com", "Subject: Your receipt\n\n3 apples")


def test_what_arrives(smtptest):  # a running server, which has no mail yet
    send_receipt(smtptest.host, smtptest.port)

    message = smtptest.wait(rcpt="kim@example.com", subject="receipt", timeout=5)
    assert message.header("Subject") == "Your receipt"  # decoded; so are the next two
    assert (message.text, message.html) == ("3 apples\n", "")
    assert (message.attachments, message.links()) == ([], [])
    assert message.envelope.mail_from == "shop@example.com"  # and rcpt_tos, tls, auth_user
    assert message.raw == b"Subject: Your receipt\r\n\r\n3 apples\r\n"  # as it was sent
    assert message.problems[0].code == "from-missing"  # what is wrong with it, by name
    assert isinstance(message["Subject"], str)  # an email.message.EmailMessage, too

    assert smtptest.messages == []  # what is there; takes nothing
    smtptest.expect_none(rcpt="lee@example.com")  # nothing, and nothing comes
    assert list(smtptest) == []  # takes all
    smtptest.reset()  # forgets all, as is done before each test


def test_when_the_server_misbehaves(smtptest):
    busy = smtptest.fault("RCPT", "451 4.7.1 Try later", when="kim@*", times=2)
    for _ in range(2):
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send_receipt(smtptest.host, smtptest.port)
    send_receipt(smtptest.host, smtptest.port)  # from the third time on, it is taken
    assert busy.fired == 2
    assert smtptest.sessions()[-1].ended == "QUIT"  # and what was said, line by line


@pytest.mark.smtptest(tls="implicit", auth={"kim": "s3cret"}, auth_required=True)
def test_login(smtptest):  # a server with options of its own
    context = smtptest.client_context()  # trusts its certificate
    with smtplib.SMTP_SSL(smtptest.host, smtptest.port, context=context) as client:
        client.login("kim", "s3cret")
