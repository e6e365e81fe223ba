"""All messages of the modules `corpus_*`."""

from __future__ import annotations

import corpus_broken
import corpus_charsets
import corpus_headers
import corpus_links
import corpus_names
import corpus_programs
import corpus_reports
import corpus_structures
from corpus import Case

MODULES = (
    *(corpus_programs, corpus_structures, corpus_reports, corpus_charsets),
    *(corpus_headers, corpus_names, corpus_links, corpus_broken),
)
CASES: list[Case] = [case for module in MODULES for case in module.CASES]
