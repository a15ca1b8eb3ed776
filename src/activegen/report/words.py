"""Numbers as the page tells them."""

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"


def percent(value: float | None) -> str:
    """With one decimal; a dash for None.

    >>> percent(0.8425).replace(NBSP, " ")
    '84.2 %'
    """
    return NONE if value is None else f"{100 * value:.1f}{NBSP}%"


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign; a dash for None.

    >>> points(0.0425).replace(NBSP, " ")
    '+4.2 points'
    """
    if value is None:
        return NONE
    rounded = round(100 * value, 1)
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else "±"
    return f"{sign}{abs(rounded):.1f}{NBSP}points"


def duration(seconds: float | None) -> str:
    """In the largest fitting units; a dash for None.

    >>> duration(3725).replace(NBSP, " ")
    '1 h 02 min'
    """
    if seconds is None:
        return NONE
    if seconds < 59.95:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest:02d}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"
