//! The whole activator in process, with workloads and pods fed by hand and pods on loopback.

#[cfg(test)]
mod ages;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod first_bytes;
#[cfg(test)]
#[path = "../../../tests/hostile/floods.rs"]
mod floods;
#[cfg(test)]
#[path = "../../../tests/hostile/frames.rs"]
#[expect(dead_code, reason = "the queue-proxy's tests use more of it")]
mod frames;
#[cfg(test)]
mod grpc;
#[cfg(test)]
#[path = "../../../tests/hostile/h2_faults.rs"]
mod h2_faults;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod heads;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hostile_http2;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod life;
#[cfg(test)]
mod many_bytes;
#[cfg(test)]
mod old;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod protocols;
#[cfg(test)]
#[path = "../../../tests/hostile/recorder.rs"]
#[expect(dead_code, reason = "the queue-proxy's tests use more of it")]
mod recorder;
#[cfg(test)]
mod redials;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod slow;
#[cfg(test)]
#[path = "../../../tests/hostile/requests.rs"]
mod smuggling;
#[cfg(test)]
mod spread;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod traces;

// What those that are shared with the queue-proxy's tests wait by.
#[cfg(test)]
use harness::soon;
