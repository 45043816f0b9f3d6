"""When this machine sleeps, and how it does so without anybody losing anything."""
