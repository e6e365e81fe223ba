import django
import pytest
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.test import override_settings

BACKEND = "django.core.mail.backends.smtp.EmailBackend"

if not settings.configured:  # a project has settings of its own
    if django.VERSION >= (6, 1):
        settings.configure(MAILERS={"default": {"BACKEND": BACKEND}})
    else:
        settings.configure()


def smtp_settings(controller, **options):
    """Return the settings that send mail to this server."""
    options = {
        "host": controller.host,
        "port": controller.port,
        **options,
    }
    if hasattr(settings, "MAILERS"):  # Django 6.1 and later
        return {
            "MAILERS": {
                name: {"BACKEND": BACKEND, "OPTIONS": options}
                for name in settings.MAILERS
            }
        }
    names = {"username": "HOST_USER", "password": "HOST_PASSWORD"}
    changed = {
        f"EMAIL_{names.get(name, name.upper())}": value
        for name, value in options.items()
    }
    return {"EMAIL_BACKEND": BACKEND, **changed}


@pytest.fixture
def mail(smtptest):
    """Have Django send its mail to the SMTP server."""
    with override_settings(**smtp_settings(smtptest)):
        yield smtptest


def send_reset_link(address, token):
    url = f"https://example.com/reset/{token}"
    message = EmailMultiAlternatives(
        "Réinitialiser votre mot de passe",
        f"Open {url}.",
        "accounts@example.com",
        [address],
    )
    message.attach_alternative(
        f'<p><a href="{url}">Choose a new one</a>.</p>', "text/html"
    )
    message.send()


def test_reset_link(mail):
    send_reset_link("kim@example.com", "s3cret")

    message = mail.wait(rcpt="kim@example.com")
    assert (
        message.header("Subject") == "Réinitialiser votre mot de passe"
    )
    assert message.links() == ["https://example.com/reset/s3cret"]


@pytest.mark.smtptest(
    tls="starttls", auth={"accounts": "pa55"}, auth_required=True
)
def test_login(smtptest, monkeypatch):
    monkeypatch.setenv(
        "SSL_CERT_FILE", smtptest.ca_file
    )  # Django has no setting for it
    login = {
        "use_tls": True,
        "username": "accounts",
        "password": "pa55",
    }
    with override_settings(**smtp_settings(smtptest, **login)):
        send_reset_link("kim@example.com", "s3cret")

    envelope = smtptest.wait(rcpt="kim@example.com").envelope
    assert envelope.auth_user == "accounts"
    assert envelope.tls is not None
