"""Starts servers beside an open gRPC channel, so many times: `grpc_channel.py COUNT`."""

import subprocess
import sys

import grpc

from lazr_smtptest import QueueController

#: Prints its port, and serves until its standard input ends.
REMOTE = """
import sys
from concurrent import futures
import grpc

server = grpc.server(futures.ThreadPoolExecutor(2))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
server.stop(None)
"""


def call(channel):
    """Call what the other end does not have; it says so if the channel works."""
    try:
        channel.unary_unary("/shop/Order")(b"", timeout=10)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED, error


def main():
    remote = subprocess.Popen(
        [sys.executable, "-c", REMOTE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with remote:
        port = remote.stdout.readline().strip()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(int(sys.argv[1])):
                call(channel)
                with QueueController(start_timeout=15):
                    call(channel)
        remote.stdin.close()
    print("all well")


if __name__ == "__main__":
    main()
