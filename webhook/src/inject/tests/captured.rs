//! Istio's lists of captured and excluded ports in a fresh injection.

use super::*;

#[test]
fn excluded_ports_are_merged() {
    let annotations = json!({ ISTIO_EXCLUDE_INBOUND_PORTS: "9090, 7777" });
    let new = with_pod_annotations(annotations);
    assert_eq!(
        annotation(&create(&new), ISTIO_EXCLUDE_INBOUND_PORTS),
        Some("9090, 7777,8022,9091,9092"),
        "something of the user's is at 9090"
    );
}

#[test]
fn traffic_ports_stay_out_of_the_mesh_where_their_app_ports_are() {
    for (users, expected, ports) in [
        (
            "8080",
            "8080,8022,9090,9091,8012",
            "8012=8080/http,8013=5432/tcp",
        ),
        (
            "5432, 8080",
            "5432, 8080,8022,9090,9091,8012,8013",
            "8012=8080/http,8013=5432/tcp",
        ),
        (
            "7777",
            "7777,8022,9090,9091",
            "8012=8080/http,8013=5432/tcp",
        ),
        // What is in the mesh takes no number that is out of it.
        (
            "8012",
            "8012,8022,9090,9091",
            "8013=8080/http,8014=5432/tcp",
        ),
        (
            "8012,5432",
            "8012,5432,8022,9090,9091,8014",
            "8013=8080/http,8014=5432/tcp",
        ),
    ] {
        let annotations = json!({ ISTIO_EXCLUDE_INBOUND_PORTS: users });
        let new = with_pod_annotations(annotations);
        let injected = create(&new);
        let merged = annotation(&injected, ISTIO_EXCLUDE_INBOUND_PORTS);
        assert_eq!(merged, Some(expected), "{users}");
        assert_eq!(
            env(&injected, "QP_PORTS").as_deref(),
            Some(ports),
            "{users}"
        );
        assert_eq!(strip(template(&injected), None), *template(&new), "{users}");
    }
}

#[test]
fn traffic_ports_are_captured_where_their_app_ports_are() {
    for (users, expected) in [
        ("8080", "8080,8012"),
        ("8080, 5432", "8080, 5432,8012,8013"),
        ("5432,7777", "5432,7777,8013"),
        ("8012,8080", "8012,8080"),
        ("7777", "7777"),
        ("*", "*"),
        ("8080,*", "8080,*"),
        ("", ""),
    ] {
        let annotations = json!({ ISTIO_INCLUDE_INBOUND_PORTS: users });
        let new = with_pod_annotations(annotations);
        let injected = create(&new);
        let merged = annotation(&injected, ISTIO_INCLUDE_INBOUND_PORTS);
        assert_eq!(merged, Some(expected), "{users}");
        assert_eq!(strip(template(&injected), None), *template(&new), "{users}");
    }
    assert_eq!(
        annotation(&create(&opted_in()), ISTIO_INCLUDE_INBOUND_PORTS),
        None
    );
}
