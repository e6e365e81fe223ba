"""Imports what only some calls need, before a test makes them.  Test process.

A test may have replaced by then what an import finds; and a Ctrl-C that comes during an import
can be lost, as Python itself ignores it there now and then.
"""

import lazr_smtptest._parent.matching
import lazr_smtptest._parent.recipients
import lazr_smtptest._parent.search
import lazr_smtptest._reading.links
import lazr_smtptest._wire.rules
import lazr_smtptest.checks  # noqa: F401
