"""`python -m appliance` is `rouse`."""

from appliance.cli import main

if __name__ == "__main__":
    main()
