"""PHPMailer and nodemailer: how tests send a message of some lines with each.

Each raises `Failed` with what its user is told.  Their time limits are in seconds.
"""

from __future__ import annotations

from programs import NODE_MODULES, Programs, needed

from lazr_smtptest import QueueController

PHP_MAILER = "/usr/share/php/libphp-phpmailer/autoload.php"

#: The first time limit is for one read, the other one for a whole reply.
PHP = """
require $argv[1];
$mail = new PHPMailer\\PHPMailer\\PHPMailer(true);
$mail->isSMTP();
[$mail->Host, $mail->Port, $mail->Timeout] = [$argv[2], $argv[3], (int) $argv[5]];
$mail->SMTPDebug = 1;
$mail->getSMTPInstance()->Timelimit = (int) $argv[5];
$mail->setFrom('kim@example.com');
$mail->addAddress('lee@example.com');
$mail->Subject = 'sent';
$mail->Body = str_repeat(str_repeat('x', 76) . "\\r\\n", (int) $argv[4]) . 'end';
try {
    $mail->send();
} catch (Exception $error) {
    fwrite(STDERR, $error->getMessage());
    exit(1);
}
"""

NODE = """
module.paths.push(process.argv[1]);
const [host, port, lines, limit] = process.argv.slice(2);
const text = ("x".repeat(76) + "\\r\\n").repeat(Number(lines)) + "end";
const message = {from: "kim@example.com", to: "lee@example.com", subject: "sent", text};
const options = {host, port, greetingTimeout: limit * 1000, socketTimeout: limit * 1000};
require("nodemailer").createTransport(options).sendMail(message).catch(error => {
  console.error(error.message);
  process.exit(1);
});
"""


def with_phpmailer(
    server: QueueController, programs: Programs, lines: int = 1, timeout: int = 1
) -> None:
    where = (needed(PHP_MAILER), server.host, str(server.port))
    programs.run("php", "-r", PHP, "--", *where, str(lines), str(timeout))


def with_nodemailer(
    server: QueueController, programs: Programs, lines: int = 1, timeout: int = 1
) -> None:
    needed(f"{NODE_MODULES}/nodemailer")
    where = (NODE_MODULES, server.host, str(server.port))
    programs.run("node", "-e", NODE, "--", *where, str(lines), str(timeout))
