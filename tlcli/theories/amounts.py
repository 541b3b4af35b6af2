"""Times and sizes in words, for estimates."""


def shown_time(seconds: float) -> str:
    """Return a duration as a person would say it."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 120:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"


def shown_size(size: float) -> str:
    """Return a number of bytes in MB, or in GB from one on."""
    if size >= 1e15:
        return f"{size / 1e9:.1g} GB"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 1):.0f} MB"
