"""Numbers as the page tells them."""

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"))


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


def flops(count: float | None) -> str:
    """Floating-point operations with three digits and a prefix; a dash for none.

    >>> flops(1.5e12).replace(NBSP, " "), flops(31_960).replace(NBSP, " ")
    ('1.50 T', '0.00 G')
    """
    if not count:
        return NONE
    unit, prefix = next((of for of in PREFIXES if count >= of[0]), PREFIXES[-1])
    value = count / unit
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}{NBSP}{prefix}"


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
