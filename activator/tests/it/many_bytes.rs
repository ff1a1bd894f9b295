//! Many bytes on a connection that is passed on: unchanged, and no more kept than must be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    harness::{Activator, FakePod, soon, tcp_workload, until},
    tls::{add_pod, taken},
};

/// Blocks of 1 MiB, none like another.
fn block(seed: usize, number: usize) -> Vec<u8> {
    let mut block: Vec<u8> = (0..1_048_576_usize)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()[0])
        .collect();
    block[..16].copy_from_slice(&[seed.to_le_bytes(), number.to_le_bytes()].concat());
    block
}

async fn send(mut stream: impl AsyncWriteExt + Unpin, seed: usize, blocks: usize) {
    for number in 0..blocks {
        stream.write_all(&block(seed, number)).await.unwrap();
    }
    stream.shutdown().await.unwrap();
}

async fn receive(mut stream: impl AsyncReadExt + Unpin, seed: usize, blocks: usize) {
    let mut seen = vec![0; 1_048_576];
    for number in 0..blocks {
        stream.read_exact(&mut seen).await.unwrap();
        assert!(seen == block(seed, number), "block {number} is another");
    }
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_both_ways_at_once_are_unchanged() {
    const BLOCKS: usize = 64;
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(b"!").await.unwrap();
    let listener = add_pod(&activator, "shop-1").await;
    let pod = taken(&listener, b"!").await;
    let (caller_read, caller_write) = caller.into_split();
    let (pod_read, pod_write) = pod.into_split();
    let all = [
        tokio::spawn(send(caller_write, 1, BLOCKS)),
        tokio::spawn(receive(pod_read, 1, BLOCKS)),
        tokio::spawn(send(pod_write, 2, BLOCKS)),
        tokio::spawn(receive(caller_read, 2, BLOCKS)),
    ];
    for one in all {
        tokio::time::timeout(Duration::from_secs(120), one)
            .await
            .unwrap()
            .unwrap();
    }
    until(|| async { activator.forwarding().await == 0 }).await;
    activator.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_stops_the_writer_and_loses_nothing() {
    // More than the kernel keeps for four sockets, of which one has little.
    const BLOCKS: usize = 64;
    let (activator, port) = Activator::with(tcp_workload("shop")).await;
    let mut caller = TcpStream::connect(port).await.unwrap();
    caller.write_all(b"!").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    activator.add_pod(&FakePod::before("shop-1", address).await);
    let pod = taken(&listener, b"!").await;

    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sender = tokio::spawn(async move {
        for number in 0..BLOCKS {
            caller.write_all(&block(3, number)).await.unwrap();
            count.store(number + 1, Ordering::Relaxed);
        }
        caller.shutdown().await.unwrap();
        caller
    });
    // Nobody reads: the sender comes to a halt when the sockets' buffers are full.
    let mut before = usize::MAX;
    until(|| {
        let now = sent.load(Ordering::Relaxed);
        let stands = now == std::mem::replace(&mut before, now);
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stands
        }
    })
    .await;
    assert!(before < BLOCKS, "{before} MiB were taken in");
    soon(receive(pod, 3, BLOCKS)).await;
    drop(soon(sender).await.unwrap());
    activator.stop().await;
}
