"""Runs the command line: `python -m keras_omv`."""

from keras_omv.cli import main

if __name__ == "__main__":
    main()
