"""``python -m activegen`` is the command ``activegen``."""

from activegen.cli import main

if __name__ == "__main__":
    main()
