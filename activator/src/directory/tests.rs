use std::{net::Ipv4Addr, sync::Arc};

use lull_contract::AppProtocol;
use lull_traces::Traces;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use super::*;
use crate::{config::Config, metrics::Metrics};

fn directory() -> Directory {
    let pairs = [("POD_NAME", "a-1"), ("POD_IP", "10.0.0.1")];
    let vars: BTreeMap<String, String> = pairs
        .map(|(key, value)| (format!("ACTIVATOR_{key}"), value.to_owned()))
        .into();
    let metrics = Metrics::register(&mut Registry::default());
    let config = Config::read(&vars).unwrap();
    Directory::new(Arc::new(Hub::new(
        config,
        (metrics, Traces::off()),
        Handle::current(),
    )))
}

fn entry(name: &str, uid: &str) -> WorkloadEntry {
    WorkloadEntry {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        ports: vec![WorkloadPort {
            app_port: 80,
            protocol: AppProtocol::Http,
            activator_port: 12_000,
        }],
        settings: Settings::default(),
        services: vec![name.to_owned()],
        serve: false,
        plain: Vec::new(),
    }
}

fn pod(namespace: &str, name: &str, app: &str) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        ip: Some(Ipv4Addr::LOCALHOST.into()),
        leaving: false,
        ready: false,
        node: Some("node".to_owned()),
        running: true,
        ports: BTreeMap::from([(80, 8012)]),
        admin_port: Some(1),
    }
}

/// Name, pods known and whether it has left, of each workload.
fn pages(directory: &Directory) -> Vec<(String, u64, bool)> {
    let pages = serde_json::to_value(directory.pages()).unwrap();
    let page = |page: &serde_json::Value| {
        (
            page["name"].as_str().unwrap().to_owned(),
            page["podsKnown"].as_u64().unwrap(),
            page["left"].as_bool().unwrap(),
        )
    };
    pages.as_array().unwrap().iter().map(page).collect()
}

#[tokio::test]
async fn pods_belong_by_namespace_and_labels_whichever_came_first() {
    let directory = directory();
    directory.apply_pod(pod("ns", "shop-1", "shop"));
    directory.apply_workload(entry("shop", "u"));
    directory.apply_pod(pod("ns", "shop-2", "shop"));
    directory.apply_pod(pod("ns", "bank-1", "bank"));
    directory.apply_pod(pod("other", "shop-3", "shop"));
    assert_eq!(pages(&directory), [("shop".to_owned(), 2, false)]);
    // Relabelled, it is nobody's.
    directory.apply_pod(pod("ns", "shop-2", "bank"));
    assert_eq!(pages(&directory)[0].1, 1);
    directory.remove_pod("ns", "shop-1");
    assert_eq!(pages(&directory)[0].1, 0);
}

#[tokio::test]
async fn a_pod_without_an_address_or_on_its_way_out_is_no_candidate() {
    let directory = directory();
    directory.apply_workload(entry("shop", "u"));
    let mut shop = pod("ns", "shop-1", "shop");
    shop.ip = None;
    directory.apply_pod(shop.clone());
    assert_eq!(pages(&directory)[0].1, 0);
    shop.ip = Some(Ipv4Addr::LOCALHOST.into());
    directory.apply_pod(shop.clone());
    assert_eq!(pages(&directory)[0].1, 1);
    shop.leaving = true;
    directory.apply_pod(shop);
    assert_eq!(pages(&directory)[0].1, 0);
}

#[tokio::test]
async fn a_changed_selector_chooses_its_pods_anew() {
    let directory = directory();
    directory.apply_pod(pod("ns", "bank-1", "bank"));
    directory.apply_workload(entry("shop", "u"));
    assert_eq!(pages(&directory)[0].1, 0);
    let mut changed = entry("shop", "u");
    changed.selector = BTreeMap::from([("app".to_owned(), "bank".to_owned())]);
    directory.apply_workload(changed);
    assert_eq!(pages(&directory)[0].1, 1);
    directory.apply_pod(pod("ns", "bank-2", "bank"));
    directory.apply_pod(pod("ns", "shop-1", "shop"));
    assert_eq!(pages(&directory)[0].1, 2);
    directory.apply_workload(entry("shop", "u"));
    directory.apply_pod(pod("ns", "bank-3", "bank"));
    assert_eq!(pages(&directory)[0].1, 1);
}

#[tokio::test]
async fn a_pod_is_its_workloads_only_with_all_labels_of_the_selector() {
    let directory = directory();
    let mut two = entry("shop", "u");
    two.selector.insert("tier".to_owned(), "web".to_owned());
    directory.apply_workload(two);
    let mut shop = pod("ns", "shop-1", "shop");
    directory.apply_pod(shop.clone());
    assert_eq!(pages(&directory)[0].1, 0);
    shop.labels.insert("tier".to_owned(), "web".to_owned());
    directory.apply_pod(shop.clone());
    assert_eq!(pages(&directory)[0].1, 1);
    shop.labels.remove("app");
    directory.apply_pod(shop);
    assert_eq!(pages(&directory)[0].1, 0);
}

#[tokio::test]
async fn ports_are_wanted_until_the_workload_leaves_and_again_when_it_is_back() {
    let directory = directory();
    let changes = directory.changes();
    directory.apply_workload(entry("shop", "u"));
    assert_eq!(directory.wanted().len(), 1);
    directory.apply_workload(entry("shop", "u"));
    assert_eq!(*changes.borrow(), 1, "the same again is no change");
    directory.remove_workload("ns", "shop");
    assert!(directory.wanted().is_empty());
    assert_eq!(pages(&directory), [("shop".to_owned(), 0, true)]);
    directory.apply_workload(entry("shop", "u"));
    assert_eq!(directory.wanted().len(), 1);
    directory.remove_workload("ns", "shop");
    for workload in directory.left() {
        directory.forget(&workload);
    }
    assert!(pages(&directory).is_empty());
    assert!(directory.left().is_empty());
    // A pod that is still there is found by one that comes.
    directory.apply_pod(pod("ns", "shop-1", "shop"));
    directory.apply_workload(entry("shop", "v"));
    assert_eq!(pages(&directory), [("shop".to_owned(), 1, false)]);
}

#[tokio::test]
async fn a_recreated_workload_is_still_whom_its_callers_mean() {
    let directory = directory();
    directory.apply_workload(entry("shop", "u"));
    let shop = directory.workload("ns", "shop").unwrap();
    directory.remove_workload("ns", "shop");
    directory.apply_workload(entry("shop", "v"));
    assert!(Arc::ptr_eq(
        &shop,
        &directory.workload("ns", "shop").unwrap()
    ));
    assert_eq!(directory.report(None).workloads[0].uid, "v");
    // Its pods reach who came before.
    directory.apply_pod(pod("ns", "shop-1", "shop"));
    assert_eq!(pages(&directory), [("shop".to_owned(), 1, false)]);
}

#[tokio::test]
async fn a_workload_that_came_back_is_not_forgotten_by_who_saw_it_leave() {
    let directory = directory();
    directory.apply_workload(entry("shop", "u"));
    directory.remove_workload("ns", "shop");
    let left = directory.left();
    directory.apply_workload(entry("shop", "u"));
    left.iter().for_each(|workload| directory.forget(workload));
    assert_eq!(pages(&directory), [("shop".to_owned(), 0, false)]);
}

#[tokio::test]
async fn a_port_that_closes_does_not_hide_the_one_that_took_its_place() {
    let directory = directory();
    directory.apply_workload(entry("shop", "u"));
    let shop = directory.workload("ns", "shop").unwrap();
    let [before, after] = [12_000, 12_001].map(|port| SocketAddr::from(([0; 8], port)));
    shop.listens(80, before);
    shop.listens(80, after);
    shop.listens_no_more(80, before);
    assert_eq!(directory.listening("ns", "shop", 80), Some(after));
    shop.listens_no_more(80, after);
    assert_eq!(directory.listening("ns", "shop", 80), None);
}

#[tokio::test]
async fn a_complete_list_removes_what_it_does_not_name() {
    let directory = directory();
    directory.apply_workload(entry("shop", "u"));
    directory.apply_workload(entry("bank", "v"));
    directory.apply_pod(pod("ns", "shop-1", "shop"));
    let only = |name: &str| BTreeSet::from([("ns".to_owned(), name.to_owned())]);
    directory.keep_workloads(&only("shop"));
    directory.keep_pods(&only("shop-9"));
    let expected = [("bank".to_owned(), 0, true), ("shop".to_owned(), 0, false)];
    assert_eq!(pages(&directory), expected);
}

#[tokio::test]
async fn a_reader_is_told_what_is_new_to_it_and_everything_when_a_workload_came_or_went() {
    let directory = directory();
    directory.apply_workload(entry("shop", "u"));
    directory.apply_workload(entry("bank", "v"));
    let told = |since| {
        let report = directory.report(since);
        let names: Vec<String> = report.workloads.iter().map(|w| w.name.clone()).collect();
        (report.sequence, report.partial, names.join(" "))
    };
    assert_eq!(told(None), (1, false, "bank shop".to_owned()));
    assert_eq!(told(Some(1)), (2, true, String::new()));
    let shop = directory.workload("ns", "shop").unwrap();
    shop.listens(80, SocketAddr::from(([10, 0, 0, 1], 12_000)));
    assert_eq!(told(Some(2)), (3, true, "shop".to_owned()));
    assert_eq!(told(Some(3)), (4, true, String::new()));
    assert_eq!(told(Some(1)).2, "shop", "to a reader that is behind");
    assert_eq!(
        told(Some(9)).2,
        "bank shop",
        "a number that was never given"
    );
    directory.apply_workload(entry("mill", "w"));
    assert_eq!(told(Some(6)), (7, false, "bank mill shop".to_owned()));
    directory.remove_workload("ns", "shop");
    assert!(!told(Some(7)).1);
}
