"""`python -m stylear` is `stylear`."""

from stylear.cli import main

main()
