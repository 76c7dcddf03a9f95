"""Say where a built page is, and open it in a browser if this machine has a desktop.

python tools/site/open_book.py _build/html/index.html
"""

import os
import sys
import webbrowser
from pathlib import Path


def has_desktop() -> bool:
    if os.environ.get("CI"):
        return False
    if sys.platform == "linux":
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return not os.environ.get("SSH_CONNECTION")


def main(page: str) -> None:
    address = Path(page).resolve().as_uri()
    print(f"\nThe book is built. Open it in a browser: {address}")
    if has_desktop():
        try:
            webbrowser.open(address)
        except (webbrowser.Error, OSError):
            # The address is printed above; a browser that does not start is no reason to fail.
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
