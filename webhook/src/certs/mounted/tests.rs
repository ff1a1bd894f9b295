use jiff::SignedDuration;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::*;
use crate::certs::params;

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn day(days: i64) -> Timestamp {
    start() + SignedDuration::from_hours(24 * days)
}

/// A certificate that ends after so many days, and its key, PEM.
fn pair(days: i64) -> (String, String) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let life = SignedDuration::from_hours(24 * days);
    let params = params(start(), life, "lull-webhook").unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A mounted folder of one test, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("lull-mounted-{test}-{}", lull_process::boot_id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, (chain, key): (&str, &str)) {
        fs::write(self.0.join(CHAIN), chain).unwrap();
        fs::write(self.0.join(KEY), key).unwrap();
    }

    fn mounted(&self) -> (Mounted, Readiness) {
        let readiness = Readiness::default();
        let served = (Arc::new(Resolver::default()), Gauge::default());
        (Mounted::new(&self.0, served, &readiness), readiness)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the system's folder for such files does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ders(chain: &str) -> Vec<CertificateDer<'static>> {
    certificates(chain.as_bytes()).unwrap()
}

#[test]
fn what_is_mounted_is_served_with_its_whole_chain() {
    let folder = Folder::new("chain");
    let (mut mounted, readiness) = folder.mounted();
    assert!(mounted.look(start()).is_err());
    assert_eq!(readiness.missing(), ["certificate"]);

    let ((own, key), (issuer, _)) = (pair(30), pair(3000));
    let chain = own + &issuer;
    folder.write((&chain, &key));
    mounted.look(start()).unwrap();
    assert_eq!(mounted.resolver.current().cert, ders(&chain));
    assert_eq!(mounted.end.get(), day(30).as_second());
    assert!(readiness.missing().is_empty());
}

#[test]
fn a_renewed_certificate_is_served_from_the_next_look_on() {
    let folder = Folder::new("renewed");
    let (mut mounted, _) = folder.mounted();
    let (chain, key) = pair(30);
    folder.write((&chain, &key));
    mounted.look(start()).unwrap();
    let first = mounted.resolver.current();
    mounted.look(day(1)).unwrap();
    assert!(Arc::ptr_eq(&first, &mounted.resolver.current()));

    let (chain, key) = pair(50);
    folder.write((&chain, &key));
    mounted.look(day(20)).unwrap();
    assert_eq!(mounted.resolver.current().cert, ders(&chain));
    assert_eq!(mounted.end.get(), day(50).as_second());
}

#[test]
fn files_that_are_no_use_leave_what_is_served() {
    let folder = Folder::new("useless");
    let (mut mounted, _) = folder.mounted();
    let ((good, good_key), (other, other_key), (ended, ended_key)) = (pair(30), pair(31), pair(1));
    folder.write((&good, &good_key));
    mounted.look(start()).unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (chain, key, said) in [
        ("", good_key.as_str(), "no certificate in tls.crt"),
        ("x", &good_key, "no certificate in tls.crt"),
        (broken, &good_key, "not an X.509 certificate"),
        (&other, "", "tls.key"),
        // Read while both were being replaced.
        (&other, &good_key, "tls.crt with tls.key"),
        (&ended, &ended_key, "has ended at 2026-01-02"),
    ] {
        folder.write((chain, key));
        let error = mounted.look(day(2)).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(mounted.resolver.current().cert, ders(&good));
    }
    folder.write((&other, &other_key));
    mounted.look(day(2)).unwrap();
    assert_eq!(mounted.resolver.current().cert, ders(&other));
}
