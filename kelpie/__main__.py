"""`python -m kelpie` is `kelpie`."""

from kelpie.command import main

if __name__ == "__main__":
    main()
