import pytest
from flask import Flask, request
from flask_mail import Mail

mail = Mail()


def create_app(**config):
    app = Flask(__name__)
    app.config.update(
        config, MAIL_DEFAULT_SENDER="accounts@example.com"
    )
    mail.init_app(app)

    @app.post("/signup")
    def signup():
        address = request.form["address"]
        mail.send_message(
            "Welcome!", recipients=[address], body="Nice to meet you."
        )
        return "", 204

    return app


@pytest.fixture
def client(smtptest):
    app = create_app(
        TESTING=True,
        MAIL_SUPPRESS_SEND=False,  # TESTING would set it
        MAIL_SERVER=smtptest.host,
        MAIL_PORT=smtptest.port,
    )
    return app.test_client()


def test_welcome(client, smtptest):
    assert (
        client.post(
            "/signup", data={"address": "kim@example.com"}
        ).status_code
        == 204
    )

    message = smtptest.wait(
        rcpt="kim@example.com", sender="accounts@example.com"
    )
    assert message.header("Subject") == "Welcome!"
    assert message.text == "Nice to meet you.\n"


def test_no_mail_without_an_address(client, smtptest):
    assert client.post("/signup").status_code == 400

    assert smtptest.messages == []
