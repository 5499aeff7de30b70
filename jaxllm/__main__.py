"""`jaxllm` and `python -m jaxllm`."""

import sys

from jaxllm.cli import run


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
