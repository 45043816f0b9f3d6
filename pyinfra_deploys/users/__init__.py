"""Who there is: the services' own users without rights, and one administrator who becomes root with a password."""
