use super::*;

#[test]
fn the_page_loads_nothing_from_outside_and_runs_nothing_inline() {
    for (path, _, text) in FILES {
        for address in ["http://", "https://", "//cdn", "@import"] {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(address), "{path} has {address}");
        }
    }
    let (_, _, html) = FILES[0];
    for inline in ["<style", "style=", "onclick", "onload", "javascript:"] {
        assert!(!html.contains(inline), "{inline}");
    }
    assert_eq!(html.matches("<script").count(), 1);
    assert!(html.contains(r#"<script src="app.js" defer></script>"#));
}

#[test]
fn the_script_never_makes_markup_of_what_the_cluster_says() {
    let (_, _, script) = FILES[1];
    for dangerous in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!script.contains(dangerous), "{dangerous}");
    }
}

#[test]
fn a_link_to_the_page_can_not_make_it_ask_for_another_path() {
    // `#../events` would open one stream after the other until nobody else is let in.
    let (_, _, script) = FILES[1];
    let names = r"/^[a-z0-9][^/]*\/[a-z0-9][^/]*$/.test(key)";
    assert_eq!(script.matches(".test(key)").count(), 1);
    assert!(script.contains(names));
}

#[test]
fn the_page_takes_a_connection_for_dead_on_which_nothing_is_said() {
    let (_, _, script) = FILES[1];
    for part in ["addEventListener('alive'", "SILENT_AFTER = 40000;"] {
        assert!(script.contains(part), "{part}");
    }
    let alive = events::SIGN_OF_LIFE;
    assert!(alive.starts_with("event: alive\ndata: "), "{alive:?}");
    assert!(events::KEEP_ALIVE * 2 < Duration::from_millis(40_000));
}

#[test]
fn what_changes_each_second_is_not_read_aloud() {
    let (_, _, html) = FILES[0];
    assert!(html.contains(r#"<p id="totals">"#));
    assert!(html.contains(r#"<p id="link" role="status""#));
    assert!(html.contains(r#"<p id="notice" role="alert" hidden>"#));
}

#[test]
fn every_answer_carries_the_policy() {
    let answer = guarded(whole(server::text(StatusCode::OK, "ok\n")));
    let policy = answer
        .headers()
        .get(header::CONTENT_SECURITY_POLICY)
        .unwrap();
    let policy = policy.to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'"),
        "{policy}"
    );
    assert!(
        !policy.contains("unsafe") && !policy.contains("  "),
        "{policy}"
    );
}
