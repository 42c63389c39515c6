"""The helper's program. `upload` waits for SIGTERM, which it gets when the pod's containers have ended; it is kept from
the first line on, so that none is lost, and all that takes time to import comes after it."""

import signal
import sys

if __name__ == "__main__":
    if "upload" in sys.argv[1:2]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    from flyte_manager.copilot.program import main

    sys.exit(main(sys.argv[1:]))
