//! The queue-proxy's binary between clients and servers that we did not write: curl, nghttp2's
//! tools, nginx, OpenSSL, a gRPC stack, a WebSocket library, PostgreSQL; and peers that mean harm.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod apps;
#[cfg(test)]
mod beside;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod bursts;
#[cfg(test)]
mod client;
#[cfg(test)]
mod expect;
#[cfg(test)]
#[path = "../../../tests/hostile/floods.rs"]
mod floods;
#[cfg(test)]
#[path = "../../../tests/hostile/frames.rs"]
mod frames;
#[cfg(test)]
mod grpc;
#[cfg(test)]
#[path = "../../../tests/hostile/h2_faults.rs"]
mod h2_faults;
#[cfg(test)]
mod h2_floods;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http1;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod own_status;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod process;
#[cfg(test)]
mod proxy;
#[cfg(test)]
#[path = "../../../tests/hostile/recorder.rs"]
mod recorder;
#[cfg(test)]
#[path = "../../../tests/hostile/requests.rs"]
mod requests;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod smuggling;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tcp;
#[cfg(test)]
mod timeouts;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod unchanged;
#[cfg(test)]
mod websocket;

// What those that are shared with the activator's tests wait by.
#[cfg(test)]
use process::soon;
