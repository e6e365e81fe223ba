"""What runs in the server process only, from its first step to its last."""
