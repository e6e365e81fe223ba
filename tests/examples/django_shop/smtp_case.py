from django.conf import settings
from django.test import override_settings

from lazr_smtptest import QueueController

BACKEND = "django.core.mail.backends.smtp.EmailBackend"


def smtp_settings(controller):
    """Return the settings that send mail to this server."""
    host, port = controller.host, controller.port
    if hasattr(settings, "MAILERS"):  # Django 6.1 and later
        mailer = {
            "BACKEND": BACKEND,
            "OPTIONS": {"host": host, "port": port},
        }
        return {"MAILERS": dict.fromkeys(settings.MAILERS, mailer)}
    return {
        "EMAIL_BACKEND": BACKEND,
        "EMAIL_HOST": host,
        "EMAIL_PORT": port,
    }


class SMTPTestMixin:
    """Starts a server for each class; each test begins without mail."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.smtp = QueueController()
        cls.smtp.start()
        cls.addClassCleanup(cls.smtp.stop)
        changed = override_settings(**smtp_settings(cls.smtp))
        changed.enable()
        cls.addClassCleanup(changed.disable)

    def setUp(self):
        super().setUp()
        self.smtp.reset()
