"""What runs in the test process only: its end of the pipes, and words for reports."""
