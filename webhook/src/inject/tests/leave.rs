//! The way out: the sidecar stays until the autoscaler says that the Services are restored.

use super::*;

const SCALE: &str = "/metadata/annotations/lull.dev~1scale";
const LEAVE: &str = "/metadata/annotations/lull.dev~1leave";

fn stored() -> Value {
    defaulted(create(&opted_in()))
}

#[test]
fn the_sidecar_outlives_the_annotation() {
    let old = stored();
    for new in [
        without(old.clone(), SCALE),
        with(old.clone(), SCALE, json!("false")),
        with(old.clone(), LEAVE, json!("requested")),
        without(defaulted(opted_in()), SCALE),
    ] {
        let mutation = mutate(Some(&old), &new, &image("lull/queue-proxy:2")).unwrap();
        assert_eq!(template(&mutation.object), template(&old));
        assert_eq!(mutation.object["metadata"], new["metadata"]);
        // And again, with the leaving object as the old one.
        let again = update(&mutation.object, &new);
        assert_eq!(template(&again), template(&old));
    }
}

#[test]
fn a_change_of_the_app_while_leaving_is_injected_as_it_was() {
    let old = stored();
    let new = without(defaulted(opted_in()), SCALE);
    let new = with(
        new,
        "/spec/template/spec/containers/0/image",
        json!("shop:2"),
    );
    let mutation = mutate(Some(&old), &new, &image("lull/queue-proxy:2")).unwrap();
    assert_eq!(sidecar(&mutation.object)["image"], "lull/queue-proxy:1");
    assert_eq!(strip(template(&mutation.object), None), *template(&new));
}

#[test]
fn uninject_gives_the_users_template_back_and_goes_itself() {
    let user = defaulted(opted_in());
    let old = without(stored(), SCALE);
    let new = with(old.clone(), LEAVE, json!("uninject"));
    let done = update(&old, &new);
    assert_eq!(done, without(user, SCALE));
    assert_eq!(update(&done, &done), done);
}

#[test]
fn uninject_stays_where_the_workload_still_asks_for_lull() {
    let old = stored();
    let new = with(old.clone(), LEAVE, json!("uninject"));
    let done = update(&old, &new);
    assert_eq!(done, with(defaulted(opted_in()), LEAVE, json!("uninject")));
    assert_eq!(update(&done, &done), done, "it is not injected again");
}

#[test]
fn wrong_annotations_do_not_hold_up_the_way_out() {
    let old = with(
        stored(),
        "/metadata/annotations/lull.dev~1window",
        json!("wrong"),
    );
    let new = with(old.clone(), LEAVE, json!("uninject"));
    assert_eq!(
        template(&update(&old, &new)),
        template(&defaulted(opted_in()))
    );
}

#[test]
fn an_injected_object_that_is_created_without_the_annotation_stays_as_it_is() {
    let new = without(stored(), SCALE);
    assert_eq!(create(&new), new);
}

#[test]
fn odd_shapes_are_left_alone_on_the_way_out_too() {
    let old = stored();
    for odd in [
        json!(null),
        json!([]),
        json!({ "spec": { "containers": 1 } }),
    ] {
        let new = with(without(stored(), SCALE), "/spec/template", odd);
        assert_eq!(update(&old, &new), new);
        let new = with(new, LEAVE, json!("uninject"));
        assert_eq!(template(&update(&old, &new)), template(&new));
    }
}
