"""What the CA issues, takes back and renews, as time goes by."""

import contextlib
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.security.ca import certificates
from appliance.security.ca.errors import CaError, CaStorageError, RequestRefusedError, UnknownCertificateError
from appliance.security.ca.names import HUB_NAME, RESERVED
from appliance.security.ca.store import CaStore
from appliance.security.ca.succession import DAY
from appliance.security.hub_certificate import HubCertificate
from appliance.settings.certificates import CertificateSettings
from tests.unit.security.ca.conftest import Ca, leaf, request


def sign(ca: Ca, name: str = "attic", days: int = 365) -> bytes:
    return ca.authority.sign(request(certificates.new_key(), name), name=name, roles=("expert",), days=days)


def trusted(ca: Ca) -> int:
    """Return how many CAs are."""
    return len(ca.authority.generations)


def test_it_is_made_on_first_use_for_its_owner_only(ca: Ca) -> None:
    assert not ca.folder.exists()
    pem = ca.authority.ca_pem
    assert ca.authority.ca_pem == pem
    for path in ca.folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(ca.folder.stat().st_mode) == 0o700
    made = leaf(pem)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.not_valid_after_utc.timestamp() == ca.clock.now + 3650 * DAY


def test_a_node_is_client_and_server_under_its_own_name(ca: Ca) -> None:
    chain = sign(ca)
    assert ca.trusts(chain)
    assert ca.trusts(chain, server="attic.node.rouse.internal")
    for other in ("cellar.node.rouse.internal", HUB_NAME, "attic", "rouse.internal"):
        assert not ca.trusts(chain, server=other)
    (record,) = ca.authority.issued()
    assert (record.name, record.roles, record.kind, record.chain) == ("attic", ("expert",), "node", chain.decode())
    assert record.serial == leaf(chain).serial_number


def test_nobody_becomes_the_hub_by_asking(ca: Ca) -> None:
    key = certificates.new_key()
    chain = ca.authority.sign(request(key), name="attic", roles=("hub", "expert", "expert"), days=1)
    names = leaf(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["rouse:role:expert"]


@pytest.mark.parametrize("name", [*sorted(RESERVED), "", "Attic", "a" * 64, "a/b", "attic\n", "*", "..", "ätti"])
def test_names_that_no_node_may_have(ca: Ca, name: str) -> None:
    with pytest.raises(RequestRefusedError, match="no name that a node may have"):
        ca.authority.sign(request(certificates.new_key(), "x"), name=name, roles=("expert",), days=1)
    assert ca.authority.issued() == []


def test_revoked_is_revoked_and_the_others_are_not(ca: Ca) -> None:
    first, second, other = sign(ca), sign(ca), sign(ca, "cellar")
    ca.authority.revoke("attic")
    ca.authority.revoke("attic")
    ca.authority.revoke("nobody")
    assert (ca.trusts(first), ca.trusts(second), ca.trusts(other)) == (False, False, True)
    assert ca.authority.names() == {"cellar"}
    ca.authority.revoke_certificate(leaf(other).serial_number)
    assert not ca.trusts(other)
    with pytest.raises(UnknownCertificateError):
        ca.authority.revoke_certificate(1)


def test_each_list_is_later_than_the_one_before_even_within_a_second(ca: Ca) -> None:
    times, numbers = [], []
    for number in range(5):
        sign(ca, f"node-{number}")
        ca.authority.revoke(f"node-{number}")
        (crl,) = CaStore(ca.folder).crls().values()
        times.append(crl.last_update_utc)
        numbers.append(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
        assert crl.last_update_utc.timestamp() <= ca.clock.now
        assert len(list(crl)) == number + 1
    assert times == sorted(set(times))
    assert numbers == sorted(set(numbers))


def test_the_list_is_renewed_daily_and_keeps_what_has_ended_for_a_while(ca: Ca) -> None:
    chain = sign(ca, days=10)
    ca.authority.revoke("attic")
    before = ca.authority.crl_file.read_bytes()
    ca.authority.maintain()
    assert ca.authority.crl_file.read_bytes() == before
    for _ in range(30):
        ca.clock.pass_days(1.1)
        ca.authority.maintain()
        (crl,) = CaStore(ca.folder).crls().values()
        assert crl.next_update_utc is not None
        assert crl.next_update_utc.timestamp() > ca.clock.now + 28 * DAY
        assert crl.get_revoked_certificate_by_serial_number(leaf(chain).serial_number) is not None
    ca.clock.pass_days(10)
    ca.authority.maintain()
    (crl,) = CaStore(ca.folder).crls().values()
    assert list(crl) == []
    assert ca.authority.issued() == []


def test_a_broken_list_is_made_again(ca: Ca) -> None:
    chain = sign(ca)
    ca.authority.revoke("attic")
    for broken in (b"", b"nonsense", ca.authority.crl_file.read_bytes()[:200]):
        ca.authority.crl_file.write_bytes(broken)
        ca.authority.maintain()
        assert ca.revoked(leaf(chain))


def test_what_cannot_be_read_is_said_with_its_name(ca: Ca) -> None:
    sign(ca)
    (ca.folder / "book.json").write_text("{")
    with pytest.raises(CaStorageError, match=r"book\.json|ca: the CA"):
        ca.authority.maintain()


def test_certificates_end_and_are_renewed_with_the_same_key(ca: Ca) -> None:
    key = certificates.new_key()
    first = ca.authority.sign(request(key), name="attic", roles=("expert", "voice"), days=90)

    def renewed() -> bytes:
        return ca.authority.renew(request(key), name="attic", days=90)

    assert renewed() == first
    ca.clock.pass_days(50)
    assert renewed() == first
    ca.clock.pass_days(12)
    second = renewed()
    assert second != first
    assert renewed() == second
    assert leaf(second).public_key() == leaf(first).public_key()
    assert ca.authority.issued()[-1].roles == ("expert", "voice")
    ca.clock.pass_days(29)
    assert (ca.trusts(first), ca.trusts(second)) == (False, True)
    ca.clock.pass_days(90)
    assert not ca.trusts(second)
    with pytest.raises(RequestRefusedError, match="pair it anew"):
        renewed()


def test_renewal_is_for_who_has_a_certificate_of_that_key(ca: Ca) -> None:
    key, other = certificates.new_key(), certificates.new_key()
    ca.authority.sign(request(key), name="attic", roles=("expert",), days=90)
    with pytest.raises(RequestRefusedError, match="another key"):
        ca.authority.renew(request(other), name="attic", days=90)
    with pytest.raises(RequestRefusedError, match="no certificate that counts"):
        ca.authority.renew(request(key), name="cellar", days=90)
    ca.authority.revoke("attic")
    with pytest.raises(RequestRefusedError, match="no certificate that counts"):
        ca.authority.renew(request(key), name="attic", days=90)


def test_nothing_slips_through_while_it_is_revoked(ca: Ca) -> None:
    """A renewal comes wholly before the revocation, or is refused."""
    for number in range(10):
        key, name = certificates.new_key(), f"node-{number}"
        ca.authority.sign(request(key), name=name, roles=("expert",), days=90)
        ca.authority.want_renewal(name)

        def renew(key: ec.EllipticCurvePrivateKey = key, name: str = name) -> None:
            with contextlib.suppress(RequestRefusedError):
                ca.authority.renew(request(key), name=name, days=90)

        with ThreadPoolExecutor(6) as pool:
            renewals = [pool.submit(renew) for _ in range(4)]
            revocation = pool.submit(ca.authority.revoke, name)
        for done in (*renewals, revocation):
            done.result()
        assert name not in ca.authority.names()
        for one in ca.authority.issued():
            if one.name == name:
                assert ca.revoked(leaf(one.chain.encode()))


def test_renewal_before_time_when_somebody_wants_it(ca: Ca) -> None:
    key = certificates.new_key()
    first = ca.authority.sign(request(key), name="attic", roles=("expert",), days=90)
    assert ca.authority.wanted() == ()
    ca.authority.want_renewal("attic")
    assert ca.authority.wanted() == ("attic",)
    second = ca.authority.renew(request(key), name="attic", days=90)
    assert second != first
    assert ca.authority.wanted() == ()
    assert ca.authority.renew(request(key), name="attic", days=90) == second
    with pytest.raises(UnknownCertificateError):
        ca.authority.want_renewal("cellar")


def test_another_ca_with_both_trusted_until_the_overlap_ends(ca: Ca) -> None:
    key = certificates.new_key()
    before = ca.authority.ca_pem
    old = ca.authority.sign(request(key), name="attic", roles=("expert",), days=365)
    ca.authority.rotate()
    assert ca.trusts(old)
    new = ca.authority.renew(request(key), name="attic", days=365)
    assert new != old
    # Who knows the old CA alone trusts the new certificates, by their chain; who knows the new one does without.
    assert ca.trusts(new, trusted=before)
    assert ca.trusts(
        leaf(new).public_bytes(certificates.PEM), trusted=leaf(ca.authority.ca_pem).public_bytes(certificates.PEM)
    )
    assert not ca.trusts(leaf(new).public_bytes(certificates.PEM), trusted=before)
    with pytest.raises(CaError, match="is trusted until 2027-01-30"):
        ca.authority.rotate()
    ca.clock.pass_days(89)
    ca.authority.maintain()
    assert trusted(ca) == 2
    ca.clock.pass_days(2)
    ca.authority.maintain()
    assert trusted(ca) == 1
    assert not ca.trusts(old)
    assert ca.trusts(new)
    assert [path.name for path in ca.folder.iterdir() if path.is_dir() and path.name != "issued"] == [
        ca.authority.generations[0].id
    ]


def test_a_ca_that_is_known_to_others_is_out_at_once(ca: Ca) -> None:
    before = ca.authority.ca_pem
    old = sign(ca)
    ca.authority.rotate()
    ca.authority.rotate(at_once=True)
    assert not ca.trusts(old)
    new = sign(ca)
    assert ca.trusts(new)
    assert not ca.trusts(new, trusted=before)
    assert len(certificates.certificates_of(new)) == 1


def test_the_ca_is_replaced_before_it_cuts_a_certificate_short(ca: Ca) -> None:
    ca.settings = CertificateSettings(ca_days=1500, overlap_days=400)
    ca.authority.maintain()
    seen = set()
    for _ in range(100):
        ca.clock.pass_days(50)
        ca.authority.maintain()
        seen |= {one.id for one in ca.authority.generations}
        ends = leaf(sign(ca)).not_valid_after_utc.timestamp()
        assert ends == ca.clock.now + 365 * DAY
    assert 4 <= len(seen) <= 8


def test_a_short_lived_ca_is_not_replaced_all_the_time(ca: Ca) -> None:
    ca.settings = CertificateSettings(ca_days=30, overlap_days=5)
    seen = set()
    for _ in range(90):
        ca.authority.maintain()
        seen |= {one.id for one in ca.authority.generations}
        ca.clock.pass_days(1)
    assert len(seen) <= 8


def test_the_hubs_own_certificate_is_always_good(ca: Ca) -> None:
    own = HubCertificate(ca.folder.parent / "secrets", days=90, clock=ca.clock)
    assert own.ensure(ca.authority, names=["house"], addresses=["192.168.1.2"])
    assert not own.ensure(ca.authority, names=["house"], addresses=["192.168.1.2"])
    assert stat.S_IMODE(own.key.stat().st_mode) == 0o600
    key = own.key.read_bytes()
    for name in (HUB_NAME, "house"):
        assert ca.trusts(own.chain.read_bytes(), server=name)
    assert own.ensure(ca.authority, names=["house"], addresses=["192.168.1.3"])
    ca.authority.rotate()
    assert own.ensure(ca.authority, names=["house"], addresses=["192.168.1.3"])
    assert len(certificates.certificates_of(own.chain.read_bytes())) == 2
    for _ in range(20):
        ca.clock.pass_days(20)
        ca.authority.maintain()
        own.ensure(ca.authority, names=["house"], addresses=["192.168.1.3"])
        assert ca.trusts(own.chain.read_bytes(), server=HUB_NAME)
    assert len(certificates.certificates_of(own.chain.read_bytes())) == 1
    own.chain.write_text("broken")
    assert own.ensure(ca.authority)
    assert own.ensure(ca.authority, anew=True)
    assert own.key.read_bytes() == key


def test_what_is_issued_revoked_and_replaced_is_in_the_audit_log(ca: Ca) -> None:
    ca.clock.now = 0.0
    first = ca.authority.generations
    serial = f"serial {leaf(sign(ca, days=1)).serial_number:x}"
    ca.authority.revoke("attic")
    ca.authority.revoke("attic")
    second = ca.authority.rotate()
    assert ca.audited() == [
        ("certificate.make", f"ca {first[0].id}", "the first one"),
        ("certificate.issue", "attic", f"{serial}, as expert, until 1970-01-02"),
        ("certificate.revoke", "attic", serial),
        ("certificate.rotate", f"ca {second.id}", f"the former one stays trusted for a while: {first[0].id}"),
    ]


def test_a_full_disk_for_the_audit_log_stops_no_certificate(ca: Ca, caplog: pytest.LogCaptureFixture) -> None:
    ca.audit_file.mkdir(parents=True)
    assert ca.trusts(sign(ca))
    assert "audit.jsonl: can't be written" in caplog.text
