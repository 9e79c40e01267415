"""`python -m ganvas`: the command line, also for launchers that start modules (torchrun)."""

from ganvas.cli.main import main

if __name__ == "__main__":
    main()
