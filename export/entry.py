"""Where `stylize-export` begins: the command, or one line where what it needs is not installed."""

from stylize.train.entry import start

__all__ = ["main"]


def main() -> None:
    """Entry point."""
    start("export")
