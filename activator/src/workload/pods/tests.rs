use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    task::Poll,
};

use lull_contract::Settings;
use lull_traces::Traces;
use prometheus_client::registry::Registry;
use tokio::{runtime::Handle, task::yield_now, time::Instant};

use super::*;
use crate::{
    config::Config,
    hub::Hub,
    metrics::Metrics,
    workload::{Hold, Spec},
};

const WEB: Ask = Ask {
    app_port: 80,
    takes_slot: true,
};

/// Without a hard limit, and made for one request in flight per pod.
fn workload() -> Arc<Workload> {
    let pairs = [("POD_NAME", "a-1"), ("POD_IP", "10.0.0.1")];
    let vars = pairs.map(|(key, value)| (format!("ACTIVATOR_{key}"), value.to_owned()));
    let config = Config::read(&BTreeMap::from(vars)).unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    let hub = Hub::new(config, (metrics, Traces::off()), Handle::current());
    let spec = Spec {
        uid: "u".to_owned(),
        selector: BTreeMap::new(),
        ports: Vec::new(),
        settings: Settings {
            target: 1.0,
            ..Settings::default()
        },
        services: Vec::new(),
        serve: false,
    };
    Workload::new(("ns".to_owned(), "shop".to_owned()), spec, Arc::new(hub))
}

fn pod(name: &str, ip: Option<IpAddr>) -> Arc<Pod> {
    Arc::new(Pod {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: BTreeMap::new(),
        ip,
        leaving: false,
        ready: false,
        node: None,
        running: false,
        ports: BTreeMap::from([(80, 8012)]),
        admin_port: Some(1),
    })
}

#[tokio::test]
async fn news_of_a_pod_on_its_way_do_not_give_the_others_part_to_the_first() {
    let workload = workload();
    let waiting = || workload.state.lock().line.len();
    let deadline = Instant::now() + Duration::from_secs(60);
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let workload = Arc::clone(&workload);
            tokio::spawn(async move { workload.slot(&mut Hold::new(WEB, deadline)).await })
        })
        .collect();
    while waiting() < callers.len() {
        yield_now().await;
    }
    // Nothing is awaited from here on, so that no time is over.
    workload.put_pod(&pod("second", None));
    workload.put_pod(&pod("first", Some(Ipv4Addr::LOCALHOST.into())));
    workload.trust("uid-first");
    assert_eq!(waiting(), 2, "the second is to have its part");
    workload.put_pod(&pod("second", None));
    assert_eq!(waiting(), 2, "it still is on its way");
}

#[tokio::test]
async fn who_waits_for_the_turn_at_a_pod_that_could_not_be_reached_goes_elsewhere() {
    let workload = workload();
    workload.put_pod(&pod("shop", Some(Ipv4Addr::LOCALHOST.into())));
    workload.trust("uid-shop");
    let hold = Hold::new(WEB, Instant::now() + Duration::from_secs(60));
    let [first, second, third] = [0; 3].map(|_| workload.slot_at_once(&hold).unwrap());
    let turn = first.turn().await.unwrap();
    let mut waiting = pin!(second.turn());
    let looked = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx)));
    assert!(looked.await.is_pending(), "one after the other");
    first.eject();
    drop(turn);
    assert!(waiting.await.is_none());
    // Who has gone elsewhere has passed it on.
    workload.trust("uid-shop");
    assert!(third.turn().await.is_some());
}

#[tokio::test]
async fn a_pod_that_breaks_off_is_left_for_others_but_never_the_last_one() {
    let workload = workload();
    let hold = Hold::new(WEB, Instant::now() + Duration::from_secs(60));
    workload.put_pod(&pod("one", Some(Ipv4Addr::LOCALHOST.into())));
    workload.trust("uid-one");
    let alone = workload.slot_at_once(&hold).unwrap();
    alone.avoid();
    assert!(workload.has_pod(WEB.app_port));
    workload.put_pod(&pod("other", Some(Ipv4Addr::LOCALHOST.into())));
    workload.trust("uid-other");
    let slots = [0; 2].map(|_| workload.slot_at_once(&hold).unwrap());
    for slot in slots {
        slot.avoid();
    }
    // The first one was left, and after it the second is the last.
    assert_eq!(workload.state.lock().trusted(), 1);
}
