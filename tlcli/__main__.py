"""`python -m tlcli`, and the program itself: signals and streams are safe before anything that takes time is loaded."""

import contextlib
import os


def main() -> None:
    """Run the program in a process of its own."""
    try:
        from tlcli.cli import interrupts

        interrupts.install()
        from tlcli.run import streams

        streams.open_missing()
        from tlcli.cli import app

        try:
            app.main()
        finally:
            if interrupts.seen():
                interrupts.leave()
    except KeyboardInterrupt:  # while loading, or once more at the end
        with contextlib.suppress(OSError):
            os.write(2, b"error: interrupted.\n")
        os._exit(130)


if __name__ == "__main__":
    main()
