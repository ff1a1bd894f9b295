//! Ports that get another number and keep their name.

use super::*;

/// `object` with these ports of the app.
fn with_ports(object: Value, ports: &[(&str, u16)]) -> Value {
    let ports: Value = ports
        .iter()
        .map(|(name, number)| json!({ "name": name, "containerPort": number, "protocol": "TCP" }))
        .collect();
    with(object, "/spec/template/spec/containers/0/ports", ports)
}

/// As the user writes it, where one port is `http`.
fn manifest(http: u16) -> Value {
    with_ports(defaulted(opted_in()), &[("http", http), ("tcp-db", 5432)])
}

fn stored(http: u16) -> Value {
    create(&manifest(http))
}

/// As its controller tells of it.
fn with_status(mut object: Value, (replicas, updated): (u32, u32)) -> Value {
    object["metadata"]["generation"] = json!(3);
    object["status"] = json!({
        "observedGeneration": 3, "replicas": replicas, "updatedReplicas": updated,
    });
    object
}

/// Names of the sidecar's first port, and of its second.
fn names(object: &Value) -> [Vec<&str>; 2] {
    let ports = sidecar(object)["ports"].as_array().unwrap();
    [8012, 8013].map(|number| {
        let same = ports.iter().filter(|port| port["containerPort"] == number);
        same.filter_map(|port| port["name"].as_str()).collect()
    })
}

#[test]
fn older_pods_and_new_ones_have_a_name_in_common() {
    let old = stored(8080);
    let mutation = mutate(Some(&old), &manifest(8081), &config()).unwrap();
    let new = &mutation.object;
    let both = [vec!["lull-8081", "lull-8080"], vec!["lull-5432"]];
    assert_eq!(names(new), both);
    let ports = env(new, "QP_PORTS");
    assert_eq!(ports.as_deref(), Some("8012=8081/http,8013=5432/tcp"));
    let warning =
        "port 8080 is 8081 now: a Service that targets it by its number needs the new one";
    assert_eq!(mutation.warnings, [warning]);
    assert_eq!(strip(template(new), None), *template(&manifest(8081)));

    let again = mutate(Some(new), &manifest(8081), &config()).unwrap();
    assert_eq!(template(&again.object), template(new));
    assert!(again.warnings.is_empty(), "{:?}", again.warnings);
    let undone = update(new, &manifest(8080));
    assert_eq!(names(&undone)[0], ["lull-8080", "lull-8081"]);
}

#[test]
fn earlier_numbers_stay_until_every_pod_is_of_one_template() {
    let second = update(&stored(8080), &manifest(8081));
    let image = "/spec/template/spec/containers/0/image";
    for (status, earlier) in [
        ((3, 1), true),
        // Asleep: a Service may target it by the old number still.
        ((0, 0), true),
        ((2, 2), false),
    ] {
        let old = with_status(second.clone(), status);
        let other_image = update(&old, &with(manifest(8081), image, json!("shop:2")));
        let expected = ["lull-8081", "lull-8080"];
        let count = if earlier { 2 } else { 1 };
        assert_eq!(names(&other_image)[0], expected[..count], "{status:?}");
        let third = update(&old, &manifest(8082));
        let expected = ["lull-8082", "lull-8081", "lull-8080"];
        assert_eq!(names(&third)[0], expected[..=count], "{status:?}");
    }
    // Nothing tells how far it is.
    let third = update(&second, &manifest(8082));
    assert_eq!(names(&third)[0].len(), 3);
}

#[test]
fn a_number_that_another_port_has_got_is_that_ports() {
    let old = stored(8080);
    let swapped = with_ports(manifest(8080), &[("http", 5432), ("tcp-db", 8080)]);
    let swapped = update(&old, &swapped);
    assert_eq!(names(&swapped), [vec!["lull-5432"], vec!["lull-8080"]]);
    let renamed = with_ports(manifest(8080), &[("web", 8081), ("tcp-db", 5432)]);
    let renamed = update(&old, &renamed);
    assert_eq!(names(&renamed), [vec!["lull-8081"], vec!["lull-5432"]]);
}
