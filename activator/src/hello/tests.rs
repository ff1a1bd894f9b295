use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

use super::*;

const ISTIO_NAME: &str = "outbound_.80_._.shop.default.svc.cluster.local";

/// What a real TLS client sends first.
fn real(server_name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(server_name).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same hello in records of `size` bytes each.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in hello[RECORD_HEAD..].chunks(size) {
        bytes.extend([HANDSHAKE_RECORD, 3, 1]);
        bytes.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        bytes.extend(fragment);
    }
    bytes
}

fn named(length: usize, name: &str) -> Result<Option<Hello>, BadHello> {
    Ok(Some(Hello {
        length,
        server_name: Some(name.to_owned()),
    }))
}

#[test]
fn a_real_hello_is_read_and_what_is_behind_it_is_not() {
    let mut bytes = real(ISTIO_NAME);
    let length = bytes.len();
    assert_eq!(parse(&bytes), named(length, ISTIO_NAME));
    bytes.extend(b"early data");
    assert_eq!(parse(&bytes), named(length, ISTIO_NAME));
}

#[test]
fn an_address_is_no_server_name() {
    let bytes = real("127.0.0.1");
    let hello = parse(&bytes).unwrap().unwrap();
    assert_eq!((hello.length, hello.server_name), (bytes.len(), None));
}

#[test]
fn every_part_of_a_hello_asks_for_more() {
    let bytes = in_records(&real("shop.example"), 100);
    for length in 0..bytes.len() {
        assert_eq!(parse(&bytes[..length]), Ok(None), "{length} bytes");
    }
    assert_eq!(parse(&bytes), named(bytes.len(), "shop.example"));
}

#[test]
fn other_beginnings_are_refused_with_their_first_wrong_byte() {
    let wrong: [&[u8]; 7] = [
        b"GET",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        // A ServerHello, and a hello of 16 KiB.
        b"\x16\x03\x01\x00\x01\x02",
        b"\x16\x03\x01\x00\x04\x01\x00\x40\x00",
        // A hello without a body.
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    ];
    for bytes in wrong {
        assert_eq!(parse(bytes), Err(BadHello), "{bytes:x?}");
        assert_eq!(parse(&bytes[..1]).is_err(), bytes[0] != HANDSHAKE_RECORD);
    }
}

#[test]
fn a_hello_that_does_not_end_is_refused_at_the_bound() {
    // Records of one byte have six times the size of what they carry.
    let mut bytes = in_records(
        &[&real("shop.example")[..RECORD_HEAD + 1], &[0; 8000]].concat(),
        1,
    );
    bytes.truncate(MAX_HELLO);
    assert_eq!(parse(&bytes), Err(BadHello));
    assert_eq!(parse(&bytes[..6]), Ok(None));
}

#[test]
fn a_second_server_name_is_refused() {
    let hello = |extensions: &[u8]| {
        let mut body = [vec![3; 34], vec![0, 0, 2, 0x13, 1, 1, 0]].concat();
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        server_name(&body).map(|name| name.map(<[u8]>::to_vec))
    };
    let one = [0, 0, 0, 6, 0, 4, 0, 0, 1, b'a'];
    assert_eq!(hello(&one), Some(Some(b"a".to_vec())));
    assert_eq!(hello(&[one, one].concat()), None);
    assert_eq!(hello(&[]), Some(None));
    assert_eq!(hello(&[0, 0, 0, 9]), None, "cut off");
}

#[test]
fn istio_names_of_another_namespace_are_told_apart() {
    let shop = Some(("shop", "default"));
    assert_eq!(asked_service(ISTIO_NAME), shop);
    assert_eq!(asked_service("outbound_.80_.v1_.shop.default.svc"), shop);
    let odd = "outbound_.80_.odd_.name_.shop.default.SVC.cluster.local.";
    assert_eq!(asked_service(odd), shop);
    // A ServiceEntry's host, a name that only looks alike, and other clients' names.
    for name in [
        "outbound_.80_._.shop.example.com",
        "outbound_.http_._.shop.other.svc.cluster.local",
        "outbound_.80",
        "shop.other.svc.cluster.local",
        "",
    ] {
        assert_eq!(asked_service(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let mut handshake = vec![HANDSHAKE_RECORD, 3, 1, 0, 200, CLIENT_HELLO, 0, 0, 196];
        handshake.extend(&bytes);
        handshake.resize(RECORD_HEAD + 200, 0);
        let _ = parse(&handshake);
    }

    #[test]
    fn a_hello_with_a_wrong_byte_is_never_longer_than_it_is(at in 0usize..200, byte: u8) {
        let mut bytes = real(ISTIO_NAME);
        bytes[at] = byte;
        if let Ok(Some(hello)) = parse(&bytes) {
            prop_assert!(hello.length <= bytes.len());
        }
    }

    #[test]
    fn any_name_is_judged_without_a_panic(name in "(outbound_\\.)?[a-z0-9._]{0,40}") {
        let _ = asked_service(&name);
    }
}
