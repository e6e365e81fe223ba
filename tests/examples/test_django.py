import django
import pytest
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.test import override_settings

if not settings.configured:  # a project has settings of its own
    settings.configure()

BACKEND = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture
def mail(smtptest):
    """Have Django send its mail to the SMTP server."""
    host, port = smtptest.host, smtptest.port
    if django.VERSION >= (6, 1):
        options = {"host": host, "port": port}
        changed = {"MAILERS": {"default": {"BACKEND": BACKEND, "OPTIONS": options}}}
    else:
        changed = {"EMAIL_BACKEND": BACKEND, "EMAIL_HOST": host, "EMAIL_PORT": port}
    with override_settings(**changed):
        yield smtptest


def send_reset_link(address, token):
    url = f"https://example.com/reset/{token}"
    message = EmailMultiAlternatives(
        "Réinitialiser votre mot de passe", f"Open {url}.", "accounts@example.com", [address]
    )
    message.attach_alternative(f'<p><a href="{url}">Choose a new one</a>.</p>', "text/html")
    message.send()


def test_reset_link(mail):
    send_reset_link("kim@example.com", "s3cret")

    message = mail.wait(rcpt="kim@example.com")
    assert message.header("Subject") == "Réinitialiser votre mot de passe"
    assert message.links() == ["https://example.com/reset/s3cret"]
