"""Mail as HTML pages, for people to look at.  Test process; imported when asked for."""
