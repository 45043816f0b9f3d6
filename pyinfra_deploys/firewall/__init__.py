"""The firewall: two zones from the settings, checked before they count, and taken back when they cut us off."""
