"""The command line `btc-assets`: one module for each command or group of commands. They parse and print; the work is done by the rooms."""

import signal
import threading

# Ctrl-C while the modules of the commands are imported, which may take a second, ends the process without a traceback.
_interruptible = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _interruptible:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from btc_assets.cli.main import run as main  # noqa: E402

if _interruptible:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]
