"""`python -m thaw` is `thaw`."""

from thaw.cli import main

if __name__ == "__main__":
    main()
