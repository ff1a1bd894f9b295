use super::*;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{ServerName, UnixTime},
};

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn names() -> Vec<String> {
    service_names("lull-webhook", "lull-system")
}

/// Whether a caller that trusts `authority`'s bundle takes `leaf` for `name` at `now`.
fn verifies(authority: &Authority, leaf: &Leaf, name: &str, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.bundle().as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let seconds = u64::try_from(now.as_second()).unwrap();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier
        .verify_server_cert(&leaf.certified.cert[0], &[], &name, &[], at)
        .is_ok()
}

#[test]
fn a_leaf_verifies_for_every_name_of_the_service_and_no_other() {
    let authority = Authority::generate(start(), "").unwrap();
    let leaf = authority.mint(&names(), start()).unwrap();
    for name in names() {
        assert!(verifies(&authority, &leaf, &name, start()), "{name}");
    }
    assert!(!verifies(
        &authority,
        &leaf,
        "other.lull-system.svc",
        start()
    ));
    let stranger = Authority::generate(start(), "").unwrap();
    assert!(!verifies(&stranger, &leaf, &names()[0], start()));
}

#[test]
fn a_leaf_is_renewed_at_two_thirds_of_its_life() {
    let authority = Authority::generate(start(), "").unwrap();
    let leaf = authority.mint(&names(), start()).unwrap();
    let day = |n: i64| start() + SignedDuration::from_hours(24 * n);
    assert!(authority.vouches_for(&leaf, day(19)));
    assert!(!authority.vouches_for(&leaf, day(20)));
    assert!(verifies(&authority, &leaf, &names()[0], day(29)));
    assert!(!verifies(&authority, &leaf, &names()[0], day(31)));
}

#[test]
fn a_clock_that_is_behind_takes_a_new_leaf() {
    let authority = Authority::generate(start(), "").unwrap();
    let leaf = authority.mint(&names(), start()).unwrap();
    let behind = start() - SignedDuration::from_mins(30);
    assert!(verifies(&authority, &leaf, &names()[0], behind));
}

#[test]
fn an_authority_survives_the_secret() {
    let made = Authority::generate(start(), "").unwrap();
    let read = Authority::parse(made.bundle(), &made.key_pem(), start()).unwrap();
    let leaf = read.mint(&names(), start()).unwrap();
    assert!(verifies(&made, &leaf, &names()[0], start()));
    assert!(made.vouches_for(&leaf, start()));
}

#[test]
fn old_and_new_leaves_are_trusted_after_a_renewal() {
    let old = Authority::generate(start(), "").unwrap();
    let late = start() + AUTHORITY_LIFE - SignedDuration::from_hours(24 * 89);
    assert!(!old.needs_renewal(start()) && old.needs_renewal(late));
    let old_leaf = old.mint(&names(), late).unwrap();
    let new = old.renewed(late).unwrap();
    assert!(!new.needs_renewal(late));
    let new_leaf = new.mint(&names(), late).unwrap();
    assert!(verifies(&new, &old_leaf, &names()[0], late));
    assert!(verifies(&new, &new_leaf, &names()[0], late));
    assert!(new.vouches_for(&old_leaf, late));
    assert!(!verifies(&old, &new_leaf, &names()[0], late));
    // The bundle doesn't grow for ever.
    let third = new.renewed(late).unwrap();
    assert_eq!(third.bundle().matches(PEM_END).count(), 2);
}

#[test]
fn unusable_contents_are_errors() {
    let authority = Authority::generate(start(), "").unwrap();
    let other = Authority::generate(start(), "").unwrap();
    let (bundle, key) = (authority.bundle(), authority.key_pem());
    for (bundle, key) in [
        ("", key.as_str()),
        ("x", &key),
        (bundle, ""),
        (bundle, "x"),
        (bundle, &other.key_pem()),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
        ),
    ] {
        assert!(Authority::parse(bundle, key, start()).is_err());
    }
    let end = start() + AUTHORITY_LIFE;
    assert!(matches!(
        Authority::parse(bundle, &key, end),
        Err(CertError::Expired)
    ));
}
