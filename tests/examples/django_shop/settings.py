import django

SECRET_KEY = "for tests only"

if django.VERSION >= (6, 1):
    MAILERS = {
        "default": {
            "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "OPTIONS": {"host": "mail.example.com"},
        }
    }
else:
    EMAIL_HOST = "mail.example.com"
