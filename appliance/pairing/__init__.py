"""How a machine that names no broker joins the house; docs/decisions/pairing.md says why so."""
