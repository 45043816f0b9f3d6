"""What runs on the machine that is checked: a POSIX shell script, and a program for its Python, where it has one."""
