"""The SSH server: keys only, no root, today's algorithms; it refuses to lock out whoever deploys."""
