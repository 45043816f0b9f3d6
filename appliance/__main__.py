"""`python -m appliance` is the `rouse` command."""

from appliance.cli import main

if __name__ == "__main__":
    main()
