use super::*;

fn workload(limit: u32) -> Arc<Workload> {
    let settings = Settings {
        container_concurrency: limit,
        ..Settings::default()
    };
    let view = View {
        settings,
        mode: Mode::Proxy,
        selector: Vec::new(),
    };
    let shared = Arc::new(Shared::for_tests(4));
    Arc::new(Workload::new(("ns", "shop", "uid"), view, shared))
}

fn pod(name: &str, last: u8) -> PodView {
    PodView {
        name: name.into(),
        ip: IpAddr::from([127, 0, 0, last]),
        ports: [(8080, 8012)].into(),
        admin_port: 8022,
        ready: false,
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn held_requests_go_out_in_order_when_a_pod_is_trusted() {
    let workload = workload(1);
    let mut waits: Vec<_> = (0..3)
        .map(|_| {
            let workload = Arc::clone(&workload);
            tokio::spawn(async move { workload.acquire(8080, LONG).await })
        })
        .collect();
    while workload.counts().0.in_flight < 3 {
        tokio::task::yield_now().await;
    }
    assert!(workload.set_pod(pod("a", 1)), "a new pod is asked");
    assert!(!workload.has_usable_pod());
    workload.trust("a");
    let first = waits.remove(0).await.unwrap().unwrap();
    assert_eq!(first.address.port(), 8012);
    assert_eq!(workload.counts().0.in_flight, 2, "one slot, one request");
    drop(first);
    let second = waits.remove(0).await.unwrap().unwrap();
    drop(second);
    waits.remove(0).await.unwrap().unwrap();
    let (held, forwarding, ..) = workload.counts();
    assert_eq!((held.in_flight, held.requests, forwarding), (0, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn the_bounds_in_count_and_time_are_kept() {
    let workload = workload(0);
    let waits: Vec<_> = (0..4)
        .map(|_| {
            let workload = Arc::clone(&workload);
            tokio::spawn(async move { workload.acquire(8080, Duration::from_secs(5)).await })
        })
        .collect();
    while workload.counts().0.in_flight < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        workload.acquire(8080, LONG).await.unwrap_err(),
        NoSlot::Full
    );
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap_err(), NoSlot::Timeout);
    }
    assert_eq!(workload.counts().0.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_gives_its_place_up() {
    let workload = workload(0);
    let left = tokio::time::timeout(Duration::from_millis(1), workload.acquire(8080, LONG)).await;
    assert!(left.is_err());
    assert_eq!(workload.counts().0.in_flight, 0);
    workload.set_pod(pod("a", 1));
    workload.trust("a");
    assert_eq!(workload.counts().1, 0, "nobody waits, nothing is in flight");
}

#[tokio::test(start_paused = true)]
async fn load_spreads_and_dead_pods_are_left_out() {
    let workload = workload(0);
    for (name, last) in [("a", 1), ("b", 2)] {
        workload.set_pod(pod(name, last));
        workload.trust(name);
    }
    let one = workload.acquire(8080, LONG).await.unwrap();
    let two = workload.acquire(8080, LONG).await.unwrap();
    assert_ne!(one.address, two.address);
    let (gone, kept) = (one.pod.clone(), two.address);
    one.eject();
    assert_eq!(workload.acquire(8080, LONG).await.unwrap().address, kept);
    assert!(workload.untrusted(&gone).is_some());
    workload.remove_pod(&two.pod);
    assert!(!workload.has_usable_pod());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stops_being_ready_is_asked_again() {
    let workload = workload(0);
    workload.set_pod(pod("a", 1));
    workload.trust("a");
    assert!(!workload.set_pod(PodView {
        ready: true,
        ..pod("a", 1)
    }));
    assert!(workload.has_usable_pod());
    assert!(workload.set_pod(PodView {
        ready: false,
        ..pod("a", 1)
    }));
    assert!(!workload.has_usable_pod());
}

#[tokio::test]
async fn a_wake_that_brings_nothing_is_told_again_with_backoff() {
    let workload = workload(0);
    let waiting = Arc::clone(&workload);
    let wait = tokio::spawn(async move { waiting.acquire(8080, LONG).await });
    while workload.counts().0.in_flight < 1 {
        tokio::task::yield_now().await;
    }
    let at = |ms: u64| Instant::now() + Duration::from_millis(ms);
    assert!(!workload.should_tell_again(at(500)));
    assert!(workload.should_tell_again(at(1_100)));
    assert!(!workload.should_tell_again(at(1_200)));
    assert!(workload.should_tell_again(at(2_100)));
    wait.abort();
}
