"""`python -m affinage`, and with it `accelerate launch -m affinage`."""

from affinage.cli.app import main

main()
