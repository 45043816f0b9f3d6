"""Builds the appliance image: root file system, disk image, OCI image, and what is published beside them."""
