"""Reports, invitations, signed and encrypted mail."""

from __future__ import annotations

from corpus import HEAD, Case, attached, b64, binary, multi, part

from lazr_smtptest.message import Attachment

INVITATION = (
    "BEGIN:VCALENDAR\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Lunch\nEND:VEVENT\nEND:VCALENDAR\n"
)
INVITED = INVITATION.replace("\n", "\r\n").encode()
PLAIN = part("text/plain; charset=utf-8", "Lunch at noon?")
HTML = part("text/html; charset=utf-8", "<p>Lunch at noon?</p>")
TEXT, MARKUP = "Lunch at noon?", "<p>Lunch at noon?</p>"

CALENDARS = [
    Case(
        "invitation-as-alternative",  # RFC 6047, 2.4
        HEAD
        + multi(
            PLAIN,
            HTML,
            part("text/calendar; charset=UTF-8; method=REQUEST", INVITATION),
            kind="alternative",
        ),
        text=TEXT,
        html=MARKUP,
        attachments=(Attachment(None, "text/calendar", INVITED, None, "UTF-8"),),
    ),
    Case(
        "invitation-twice",  # as Google sends them
        HEAD
        + multi(
            multi(
                PLAIN,
                part("text/calendar; charset=UTF-8; method=REQUEST", INVITATION),
                kind="alternative",
                boundary="alt",
            ),
            part(
                'application/ics; name="invite.ics"',
                b64(INVITED),
                "Content-Transfer-Encoding: base64",
                attached("invite.ics"),
            ),
        ),
        text=TEXT,
        attachments=(
            Attachment(None, "text/calendar", INVITED, None, "UTF-8"),
            Attachment("invite.ics", "application/ics", INVITED),
        ),
    ),
    Case(
        "invitation-alone",
        HEAD + part("text/calendar; method=REPLY; charset=utf-8", INVITATION),
        attachments=(Attachment(None, "text/calendar", INVITED, None, "utf-8"),),
    ),
]

NOTICE = "Your message to max@example.com was not delivered."
STATUS = (
    "Reporting-MTA: dns; mail.example.com\n\nFinal-Recipient: rfc822; max@example.com\n"
    "Action: failed\nStatus: 5.1.1\n"
)
STATUS_OCTETS = STATUS.replace("\n", "\r\n").encode()
RETURNED = "From: kim@example.com\nTo: max@example.com\nSubject: Soup\n\nhttps://example.com/soup"
RETURNED_OCTETS = RETURNED.replace("\n", "\r\n").encode()
LOG = "X-Loop: seen"

REPORTS = [
    Case(
        "delivery-report",  # RFC 3464
        HEAD
        + multi(
            part("text/plain", NOTICE, "Content-Description: Notification"),
            part("message/delivery-status", STATUS, "Content-Description: Delivery report"),
            part("message/rfc822", RETURNED, "Content-Description: Undelivered Message"),
            kind="report; report-type=delivery-status",
        ),
        text=NOTICE,
        attachments=(
            Attachment(None, "message/delivery-status", STATUS_OCTETS),
            Attachment(None, "message/rfc822", RETURNED_OCTETS),
        ),
    ),
    Case(
        "delivery-report-with-the-header-alone",  # RFC 6522, 4
        HEAD
        + multi(
            part("text/plain", NOTICE),
            part("message/delivery-status", STATUS),
            part("text/rfc822-headers", "Subject: Soup\n"),
            kind="report; report-type=delivery-status",
        ),
        text=NOTICE,
        attachments=(
            Attachment(None, "message/delivery-status", STATUS_OCTETS),
            Attachment(None, "text/rfc822-headers", b"Subject: Soup\r\n"),
        ),
    ),
    Case(
        "delivery-report-for-all-languages",  # RFC 6533
        HEAD
        + multi(
            part("text/plain; charset=utf-8", "Nicht zugestellt: jörg@example.com"),
            part("message/global-delivery-status", "Reporting-MTA: dns; mail.example.com\n"),
            part("message/global", "Subject: Grüße\n\nx"),
            kind="report; report-type=delivery-status",
        ),
        text="Nicht zugestellt: jörg@example.com",
        attachments=(
            Attachment(
                None, "message/global-delivery-status", b"Reporting-MTA: dns; mail.example.com\r\n"
            ),
            Attachment(None, "message/global", "Subject: Grüße\r\n\r\nx".encode()),
        ),
    ),
    Case(
        "delivery-report-in-html-too",
        HEAD
        + multi(
            multi(
                part("text/plain", NOTICE),
                part("text/html", f"<p>{NOTICE}</p>"),
                kind="alternative",
                boundary="alt",
            ),
            part("message/delivery-status", STATUS),
            kind="report; report-type=delivery-status",
        ),
        text=NOTICE,
        html=f"<p>{NOTICE}</p>",
        attachments=(Attachment(None, "message/delivery-status", STATUS_OCTETS),),
    ),
    Case(
        "read-receipt",  # RFC 8098
        HEAD
        + multi(
            part("text/plain", "Your message was displayed."),
            part(
                "message/disposition-notification",
                "Final-Recipient: rfc822; lee@example.com\n"
                "Disposition: manual-action/MDN-sent-manually; displayed\n",
            ),
            kind="report; report-type=disposition-notification",
        ),
        text="Your message was displayed.",
        attachments=(
            Attachment(
                None,
                "message/disposition-notification",
                b"Final-Recipient: rfc822; lee@example.com\r\n"
                b"Disposition: manual-action/MDN-sent-manually; displayed\r\n",
            ),
        ),
    ),
    Case(
        "abuse-report",  # RFC 5965
        HEAD
        + multi(
            part("text/plain; charset=us-ascii", "This is an abuse report."),
            part("message/feedback-report", "Feedback-Type: abuse\nVersion: 1\n"),
            part("message/rfc822", RETURNED, "Content-Disposition: inline"),
            kind="report; report-type=feedback-report",
        ),
        text="This is an abuse report.",
        attachments=(
            Attachment(None, "message/feedback-report", b"Feedback-Type: abuse\r\nVersion: 1\r\n"),
            Attachment(None, "message/rfc822", RETURNED_OCTETS, inline=True),
        ),
    ),
    Case(
        "failure-report-of-dmarc",
        HEAD
        + multi(
            part("text/plain", "An aggregate report."),
            binary("application/gzip", b"\x1f\x8b\x08\0", attached("example.com!1!2.xml.gz")),
        ),
        text="An aggregate report.",
        attachments=(Attachment("example.com!1!2.xml.gz", "application/gzip", b"\x1f\x8b\x08\0"),),
    ),
    Case(
        "old-bounce-in-one-text",
        "From: Mail Delivery System <MAILER-DAEMON@example.com>\nSubject: Undelivered\n\n"
        "max@example.com: no such user\n\n--- Below this line is a copy.\n\nSubject: Soup\n\nx\n",
        text="max@example.com: no such user\n\n--- Below this line is a copy.\n\n"
        "Subject: Soup\n\nx\n",
        header={
            "From": "Mail Delivery System <MAILER-DAEMON@example.com>",
            "Subject": "Undelivered",
        },
    ),
    Case(
        "digest-alone",  # RFC 2046, 5.1.5
        HEAD
        + multi(
            "\nFrom: kim@example.com\nSubject: One\n\n1",
            part("text/plain", "Not a message"),
            "Content-Description: the last\n\nFrom: lee@example.com\n\n2",
            kind="digest",
        ),
        text="Not a message",
        attachments=(
            Attachment(None, "message/rfc822", b"From: kim@example.com\r\nSubject: One\r\n\r\n1"),
            Attachment(None, "message/rfc822", b"From: lee@example.com\r\n\r\n2"),
        ),
    ),
    Case(
        "partial-message",  # RFC 2046, 5.2.2
        HEAD
        + part('message/partial; id="7@example.com"; number=1; total=2', "Subject: Long\n\nOne"),
        attachments=(Attachment(None, "message/partial", b"Subject: Long\r\n\r\nOne"),),
    ),
    Case(
        "external-body",  # RFC 2046, 5.2.3
        HEAD
        + multi(
            PLAIN,
            part(
                'message/external-body; access-type=URL; URL="https://example.com/menu.pdf"',
                "Content-Type: application/pdf\nContent-ID: <menu@example.com>\n",
            ),
        ),
        text=TEXT,
        attachments=(
            Attachment(
                None,
                "message/external-body",
                b"Content-Type: application/pdf\r\nContent-ID: <menu@example.com>\r\n",
            ),
        ),
    ),
]

SIGNATURE = "-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n"
SIGNATURE_OCTETS = SIGNATURE.replace("\n", "\r\n").encode()
CIPHER = "-----BEGIN PGP MESSAGE-----\n\nhQ==\n-----END PGP MESSAGE-----\n"
CIPHER_OCTETS = CIPHER.replace("\n", "\r\n").encode()

SECURED = [
    Case(
        "pgp-signed",  # RFC 3156
        HEAD
        + multi(
            PLAIN,
            part(
                'application/pgp-signature; name="signature.asc"',
                SIGNATURE,
                "Content-Description: OpenPGP digital signature",
                attached("signature.asc"),
            ),
            kind='signed; micalg=pgp-sha512; protocol="application/pgp-signature"',
        ),
        text=TEXT,
        attachments=(Attachment("signature.asc", "application/pgp-signature", SIGNATURE_OCTETS),),
    ),
    Case(
        "pgp-signed-parts",
        HEAD
        + multi(
            multi(
                PLAIN,
                binary("application/pgp-keys", b"key", attached("key.asc")),
                boundary="inner",
            ).rstrip("\n"),
            part("application/pgp-signature", SIGNATURE),
            kind='signed; protocol="application/pgp-signature"',
        ),
        text=TEXT,
        attachments=(
            Attachment("key.asc", "application/pgp-keys", b"key"),
            Attachment(None, "application/pgp-signature", SIGNATURE_OCTETS),
        ),
    ),
    Case(
        "pgp-encrypted",
        HEAD
        + multi(
            part("application/pgp-encrypted", "Version: 1"),
            part(
                'application/octet-stream; name="encrypted.asc"',
                CIPHER,
                'Content-Disposition: inline; filename="encrypted.asc"',
            ),
            kind='encrypted; protocol="application/pgp-encrypted"',
        ),
        attachments=(
            Attachment(None, "application/pgp-encrypted", b"Version: 1"),
            Attachment("encrypted.asc", "application/octet-stream", CIPHER_OCTETS, inline=True),
        ),
    ),
    Case(
        "pgp-in-the-text",
        HEAD + part("text/plain", CIPHER),
        text="-----BEGIN PGP MESSAGE-----\n\nhQ==\n-----END PGP MESSAGE-----\n",
    ),
    Case(
        "smime-signed",  # RFC 8551, 3.5.3
        HEAD
        + multi(
            PLAIN,
            binary(
                'application/pkcs7-signature; name="smime.p7s"', b"\x30\x82", attached("smime.p7s")
            ),
            kind='signed; protocol="application/pkcs7-signature"; micalg=sha-256',
        ),
        text=TEXT,
        attachments=(Attachment("smime.p7s", "application/pkcs7-signature", b"\x30\x82"),),
    ),
    Case(
        "smime-encrypted",  # RFC 8551, 3.3
        HEAD
        + binary(
            'application/pkcs7-mime; smime-type=enveloped-data; name="smime.p7m"',
            b"\x30\x80",
            attached("smime.p7m"),
        ),
        attachments=(Attachment("smime.p7m", "application/pkcs7-mime", b"\x30\x80"),),
    ),
    Case(
        "signed-mail-of-a-list-with-footer",
        HEAD
        + multi(
            multi(
                PLAIN,
                part("application/pgp-signature", SIGNATURE),
                kind='signed; protocol="application/pgp-signature"',
                boundary="inner",
            ),
            part("text/plain", "-- \nThe list"),
        ),
        text="Lunch at noon?\n-- \nThe list",
        attachments=(Attachment(None, "application/pgp-signature", SIGNATURE_OCTETS),),
    ),
]
CASES = [*CALENDARS, *REPORTS, *SECURED]
