"""What crosses between the two processes.  Both of them import this."""
