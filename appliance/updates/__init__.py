"""Updates of a machine that runs the image: found, downloaded, verified, installed into the other slot, tried, kept.

Two parts, with a folder between them. The node daemon, without privileges, downloads into its state folder (`staging`)
and asks systemd for `rouse-update@VERSION.service`. That unit (`root`) trusts nothing of it: it copies, verifies the
signature and every hash by itself, and hands the copy to systemd-sysupdate. After the restart `rouse-healthy.service`
(`health`) decides whether the version stays; systemd-boot counts the tries and goes back by itself.
"""
