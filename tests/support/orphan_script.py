"""A test process that gets killed, for `trials.killed_test_process`."""

import os
import subprocess
import sys
import time
import warnings
from multiprocessing import get_context

from lazr_smtptest import QueueController


def idle():
    time.sleep(60)


def main():
    warnings.simplefilter("ignore")  # of forking beneath threads: that is what is tried
    method, count, others = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "others"
    controllers = [QueueController(start_method=method) for _ in range(count)]
    kept = []
    for controller in controllers:
        controller.start()
        if others:
            child = get_context("fork").Process(target=idle)
            child.start()
            kept += [child.pid, subprocess.Popen(["sleep", "60"], close_fds=False).pid, os.fork()]
            if not kept[-1]:
                time.sleep(60)
                os._exit(0)
    print(*kept, flush=True)
    print(*(f"{c.pid}:{c.port}" for c in controllers), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()
