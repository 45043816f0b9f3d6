"""The system below the services: packages, name, time, locale, kernel settings, journal, Debian's own updates."""
