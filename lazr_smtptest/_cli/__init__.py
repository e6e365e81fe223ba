"""The command line, in the place of the test process."""
