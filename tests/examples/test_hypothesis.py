import smtplib
from email.message import EmailMessage

from hypothesis import given, settings
from hypothesis import strategies as st


def send_greeting(host, port, name):
    message = EmailMessage()
    message["From"] = "shop@example.com"
    message["To"] = "kim@example.com"
    message["Subject"] = f"Hello {name}"
    message.set_content("Welcome.\n")
    with smtplib.SMTP(host, port) as client:
        client.send_message(message)


@settings(max_examples=20, deadline=None)
@given(
    name=st.text(
        st.characters(categories=["L", "N"]), min_size=1, max_size=15
    )
)
def test_greeting(smtptest_server, name):
    smtptest_server.reset()

    send_greeting(smtptest_server.host, smtptest_server.port, name)

    (message,) = smtptest_server.messages
    assert message.header("Subject") == f"Hello {name}"
